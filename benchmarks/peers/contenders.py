"""Who is compared: what each is called, by what it computes, and in which environment it starts."""

from dataclasses import dataclass

from attn_unet_jax.models.ops.onednn_conv import has_onednn

# What the commands of this program set for themselves, see `attn_unet_jax.runtime.huge_pages`.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True)
class Contender:
  """One who does a work.

  Attributes:
    name: in tables and results.
    library: `ours`, `onednn` (ours with oneDNN's convolutions), `openvino`, `released` (the
      released network in PyTorch) or `monai`.
    dtype: float32 or bfloat16; bfloat16 of PyTorch is autocast's.
    layout: of PyTorch alone: `channels_last`, `default`, or `compiled`, which has channels last.
    has_large_pages: whether its memory comes in pages of 2 MiB.
  """

  name: str
  library: str
  dtype: str = "float32"
  layout: str = ""
  has_large_pages: bool = True

  @property
  def environment(self) -> dict[str, str]:
    """Returns what its process has beyond the usual environment."""
    return LARGE_PAGES if self.has_large_pages else {}


OURS = Contender("ours", "ours")
OURS_BFLOAT16 = Contender("ours, bfloat16", "ours", "bfloat16")
ONEDNN = Contender("ours, oneDNN", "onednn")
ONEDNN_BFLOAT16 = Contender("ours, oneDNN, bfloat16", "onednn", "bfloat16")
RELEASED = Contender("released, channels last, 2 MiB pages", "released", "float32", "channels_last")
RELEASED_AS_STARTED = Contender(
  "released, channels last, as started", "released", "float32", "channels_last", False
)
RELEASED_BFLOAT16 = Contender(
  "released, channels last, bfloat16, 2 MiB pages", "released", "bfloat16", "channels_last"
)
OPENVINO = Contender("ours in OpenVINO", "openvino")
OPENVINO_BFLOAT16 = Contender("ours in OpenVINO, bfloat16", "openvino", "bfloat16")
_MORE = (
  Contender("released, default layout, 2 MiB pages", "released", "float32", "default"),
  Contender("released, default layout, as started", "released", "float32", "default", False),
  Contender("released, torch.compile, 2 MiB pages", "released", "float32", "compiled"),
  Contender(
    "released, channels last, bfloat16, as started", "released", "bfloat16", "channels_last", False
  ),
  Contender(
    "MONAI's AttentionUnet (another network), 2 MiB pages", "monai", "float32", "channels_last"
  ),
)
_QUICK = (OURS, OURS_BFLOAT16, RELEASED, RELEASED_AS_STARTED, RELEASED_BFLOAT16)
_ENGINES = (OPENVINO, OPENVINO_BFLOAT16)


def list_contenders(work: str, *, quick: bool) -> list[Contender]:
  """Lists who does a work on one patch; ours is first, which the ratios are against.

  oneDNN's convolutions take part in training alone, where `native/` is built.

  Args:
    work: `training_step` or `inference`.
    quick: whether only those of the goals take part.
  """
  engines = _ENGINES if work == "inference" else ()
  if work == "training_step" and has_onednn():
    engines = (ONEDNN, ONEDNN_BFLOAT16)
  return [*_QUICK, *engines, *(() if quick else _MORE)]
