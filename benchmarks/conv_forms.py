r"""Convolutions of the paper's network, XLA's own and with packed voxels, forward and backward.

  python -m benchmarks.conv_forms --dtype=bfloat16 --output=FILE.json

For a GPU: how many voxels `models/ops/conv.py` packs was chosen by such figures
(docs/reference/gpu.md). Two patches of 160x160x96; each form is compiled by itself and called
several times in a row, in turn with the others.
"""

from absl import app, flags

from attn_unet_jax.runs.folder import describe_environment
from attn_unet_jax.runtime.huge_pages import enable_huge_pages
from attn_unet_jax.runtime.xla import keep_channels_last
from benchmarks.conv_works import Convolution, measure
from benchmarks.result import keep, machine

_FINEST, _SECOND, _THIRD = (160, 160, 96), (80, 80, 48), (40, 40, 24)
CONVOLUTIONS = (
  (_FINEST, 1, 16), (_FINEST, 16, 16), (_FINEST, 48, 16),
  (_SECOND, 16, 32), (_SECOND, 32, 32), (_SECOND, 96, 32), (_THIRD, 64, 64),
)  # fmt: skip

_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "compute type")
_VOXELS = flags.DEFINE_list("voxels", ["1", "2", "4", "8"], "voxels of a pack; 1: XLA's own")
_BATCH = flags.DEFINE_integer("batch", 2, "patches")
_SHRINK = flags.DEFINE_integer("shrink", 1, "the grids' sizes are divided by this")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed rows of calls of each form")
_CALLS = flags.DEFINE_integer("calls", 12, "calls in a row")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")


def main(argv: list[str]) -> None:
  """Measure, print and write."""
  del argv
  keep_channels_last()
  voxels, rows = [int(n) for n in _VOXELS.value], []
  for grid, channels, features in CONVOLUTIONS:
    what = Convolution(tuple(n // _SHRINK.value for n in grid), channels, features)
    found = measure(what, _DTYPE.value, _BATCH.value, voxels, _REPEATS.value, _CALLS.value)
    print(*found, sep="\n", flush=True)
    rows += found
  result = {"machine": machine(), "environment": describe_environment(), "dtype": _DTYPE.value}
  keep(result | {"batch": _BATCH.value, "convolutions": rows}, _OUTPUT.value)


if __name__ == "__main__":
  enable_huge_pages()  # as the commands of the program do
  app.run(main)
