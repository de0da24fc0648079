"""Looks at scans and labels before any training: what is wrong, how wrong, and what to do.

`sources` finds the cases of a path. `hounsfield`, `geometry` and `label_map` each look at one side
of a case, and `inspected_case` puts them together. `collection` looks at many cases on threads, and
at what shows only between them. `check_report` writes down what was found. This package knows
files, labels and configs, and nothing of networks.
"""
