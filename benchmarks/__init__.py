"""Scripts that measure speed, each printing and storing its figures with machine and versions.

They import the package; nothing imports them.
"""
