"""One file per experiment: `get_config(arg)`, opening with its command and what it reaches."""
