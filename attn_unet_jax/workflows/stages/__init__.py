"""Coarse to fine: a system of several networks, that of Roth et al. 2018 (arXiv:1702.00045).

A first network finds a box, networks of the second stage say inside it what is interior and what
is boundary, and a random forest over superpixels decides. `body.py` finds the patient, `box.py` the
box in the first stage's answer, `superpixels.py` cuts slices along the boundary map, `features.py`
measures them, `table.py` and `forest.py` learn from them. This package may use everything but the
commands; scikit-image and scikit-learn come with the extra `hnn`.
"""
