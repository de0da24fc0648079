"""Looks at scans and labels before any training: what is wrong, how wrong, and what to do.

`sources` finds the cases of a path, `intensity`, `geometry` and `labels` each look at one side of
a case, `case` puts them together, `collection` looks at many on threads and for what only shows
between them, `report` writes it down. Knows files, labels and configs, nothing of networks.
"""
