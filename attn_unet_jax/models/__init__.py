"""The networks, as Flax Linen modules that know nothing of files, flags or volumes.

`ops` computes convolutions and resizing, `layers`, `gates` and `upconv` hold the shared layers, and
there is one file per network. `options` lists the networks by name, `build` builds one.

A network maps `(x [N, X, Y, Z, 1], train)` to `(logits [N, X, Y, Z, K], out)`. `out["gates"]` holds
the coefficients of the gates; `hnn` adds the maps that its loss reads. Its properties:

- `patch_multiple`: the size of a patch is a multiple of it, plus `patch_offset` if there is one.
- `output_margin`: how much smaller the output is, on each side.
- `answer_depends_on`: what decides the answer at a voxel. `surroundings`: the voxels around it, as
  far as `output_margin`, and nothing else. `borders`: the padding at the window's borders too.
  `window`, the default: all of the window, by means, a softmax or maps over it.
- `kernel_size`: that of the widest convolution; only networks whose patches devices can divide.
"""
