"""What every command stands on: errors, files, memory, signals, the console, hosts, XLA's settings.

Nothing here imports anything of the other packages.
"""
