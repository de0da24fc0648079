r"""Makes a run out of weights of PyTorch networks, to predict with or to start from.

  python -m attn_unet_jax.convert --input=WEIGHTS --workdir=runs/reference \
    --config=experiments/pancreas.py:paper_loss \
    --config.data.labels=spleen=1,pancreas=2,kidney=3

WEIGHTS is a state_dict of unet_ct_dsv, unet_ct_single_att_dsv or unet_ct_multi_att_dsv: a
.safetensors file (needs the package safetensors), or a .pth file, which is read without running
any code in it (needs torch: pip install -e '.[bench]'). For experiments/hnn.py it is torchvision's
vgg16, trained on ImageNet, which becomes the trunk of every view, and the run is one to start from
(--config.init.workdir). The config says the rest: the network, the
classes in the order of its outputs, and how scans are prepared. Nothing is overwritten.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.runs.builtin import find_own_run
from attn_unet_jax.runtime import process

_INPUT = flags.DEFINE_string("input", None, "A state_dict: .safetensors or .pth.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to make.", required=True)
define_config()


def main() -> None:
  """Converts what the flags say."""
  # Before JAX is loaded: nothing is ever written into a release.
  workdir = find_own_run(_WORKDIR.value or "", "name another folder")
  # Weights come without data: the config says how scans are to be prepared.
  config = CONFIG_FLAGS.read(data=False)
  from attn_unet_jax.workflows.convert_weights import convert_weights  # loads JAX

  convert_weights(Path(_INPUT.value or ""), config, workdir)


def run() -> None:
  """Starts the command."""
  process.run_command(main, CONFIG_FLAGS)


if __name__ == "__main__":
  run()
