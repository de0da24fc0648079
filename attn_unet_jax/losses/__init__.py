"""Segmentation losses: one pure function per loss, and `total`, which sums the configured terms.

Every loss maps logits `[N, X, Y, Z, K]` and integer labels `[N, X, Y, Z]` in `0..K-1` (0 is the
background) to a scalar. Logits of a lower precision than float32 are computed on in float32;
float64 stays float64, so that gradients can be checked. Only `side_bce` reads other maps than the
logits.

The label `UNLABELLED` marks a voxel of which nobody said what it is. Every loss leaves such voxels
out of all its sums. No other label outside `0..K-1` may come: labels are checked where they are
read, and what a loss would make of one differs from loss to loss.

`operands` holds what they share, then comes one file per family. Nothing here imports anything of
the package outside `losses`.
"""
