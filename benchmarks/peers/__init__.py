"""Ours against the peers, each in a process of its own; `python -m benchmarks.peers.compare`."""
