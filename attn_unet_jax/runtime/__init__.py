"""The ground that every command stands on.

Errors and doubts, files and locks, memory and cores, signals and exit status, the console, hosts,
and XLA's settings. Nothing here imports from the other packages.
"""
