"""The training of a system of several networks: a chain of runs, and all stages in order."""
