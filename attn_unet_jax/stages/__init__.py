"""A coarse-to-fine system of several networks, that of Roth et al. 2018 (arXiv:1702.00045).

A first network finds a box, two networks of the second stage predict interior and boundary of the
organ inside it, and a random forest over superpixels decides. `body` finds the patient, `box` the
box in the first stage's probabilities. `superpixels` divides slices along the boundary map,
`features` measures the superpixels, and `table` and `forest` learn from them. `system` combines the
stages, and `workflows/stages` trains them. scikit-image and scikit-learn come with the extra `hnn`.
"""
