"""Segmentation losses: one pure function per loss, and `total`, which sums the configured terms.

All losses share this contract; the docstring of a loss adds its formula, its source, its options
and its range.

Args:
    logits: [N, X, Y, Z, K], K >= 2, in any floating-point type. The computation is in float32 at
      least; float64 stays float64, so that gradients can be checked numerically.
    labels: integers [N, X, Y, Z] in 0..K-1, 0 being the background, or `UNLABELLED`.

Returns:
    A scalar. The cross-entropies are in nats.

Raises:
    ValueError: the shapes do not fit, or K < 2.

`dice`, `reference_dice` and `bce` also take soft labels: floating-point shares in [0, 1] of one
class, or `UNLABELLED`.

Only `side_bce` reads other maps than the logits.

The label `UNLABELLED` marks a voxel whose class is unknown. Every loss leaves such voxels out of
all its sums. Any other label outside 0..K-1 is an error that the losses do not detect: labels are
checked when they are read from disk.

Labels of data sets that label only some of the classes are merged before they reach a loss, see
`partial`.

In the formulas p is the softmax of the logits, g the one-hot label, n a sample, k a class, v a
voxel. `sum` runs over the labelled voxels of one sample.

`operands` holds what the losses share; then there is one file per family.
"""
