"""The networks, as Flax Linen modules that know nothing of files, flags or volumes.

`conv` decides how a 3-D convolution is computed, `layers` and `gates` are what networks are built
from, and then comes one file per network. Nothing here imports anything of the package outside
`models`. A network maps `(x [N, X, Y, Z, 1], train)` to `(logits [N, X, Y, Z, K], out)` with the
gates' coefficients in `out["gates"]` (and `hnn`'s maps, by which it is trained, beside them), and
states by `patch_multiple` and `output_margin` which patches it takes and how much smaller its
output is; where those patches are no plain multiples, `patch_offset` is what is added;
`kernel_size` is that of its widest convolution, if devices can divide its patches. `build` names
them for the config.
"""
