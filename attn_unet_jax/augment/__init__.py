"""Random 3-D augmentation of one patch, as pure functions that run inside the compiled step.

A spatial part (rotation, scaling, shift: one affine map about the patch's centre; a smooth random
deformation; then flips) acts on image and label alike, an intensity part on the image only. Only
the patch is sampled, out of a block that `source_shape` makes large enough, so nothing is ever
extrapolated. Angles are those of the voxel grid: on an anisotropic working grid a rotation shears
the anatomy.

`options` holds the ranges of all draws, `affine` and `deformation` draw coordinates, `warp`
samples, `intensity` changes the image, and `patch` puts them together. `histogram`, which runs
before normalisation, gives a patch the intensities of another scan.
"""
