"""Looks at scans and labels before any training: what is wrong, how wrong, and what to do.

`sources` finds the cases of a path. `geometry` and `label_map` each look at one side of a case, and
`inspected_case` puts what they find beside what `volumes` finds by itself. `collection` looks at
many cases on threads, and at what shows only between them. `check_report` writes down what was
found. This package knows files, labels and configs, and nothing of networks.
"""
