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

import jax
from absl import flags
from ml_collections import config_flags

from attn_unet_jax.config.flags import checked_config
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.weights.from_pytorch import converted

_INPUT = flags.DEFINE_string("input", None, "A state_dict: .safetensors or .pth.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to make.", required=True)
config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")


def main() -> None:
  """The command."""
  config = checked_config(data=False)
  source, workdir = Path(_INPUT.value), Path(_WORKDIR.value)
  if run_folder.begun(workdir):
    raise UserError(f"--workdir={workdir}: holds a run already; choose another")
  check_writable(workdir)
  state = converted(source, config)
  run_folder.claim(workdir, config)
  with checkpoints(workdir / "checkpoints", config.train.keep) as store:
    store.save(state)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  print_line(f"{source}: {count:,} parameters of {config.model.name} -> {workdir}")


if __name__ == "__main__":
  process.run_command(main)
