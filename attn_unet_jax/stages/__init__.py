"""Coarse to fine: a system of several networks, that of Roth et al. 2018 (arXiv:1702.00045).

A first network finds a box, networks of the second stage say inside it what is interior and what
is boundary, and a random forest over superpixels decides. `body` finds the patient, `box` the box
in the first stage's answer, `superpixels` cuts slices along the boundary map, `features` measures
them, `table` and `forest` learn from them, `system` puts them together. `workflows/stages` trains
them. scikit-image and scikit-learn come with the extra `hnn`.
"""
