"""Makes a run from weights that another program trained."""

from pathlib import Path

import jax

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runs.folder import has_progress
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.weights.from_pytorch import load_pytorch_state
from attn_unet_jax.workflows.run_folder import open_run_folder


def convert_weights(source: Path, config: RunConfig, workdir: Path) -> None:
  """Writes a run whose only checkpoint has the weights of a file.

  Args:
    source: a state_dict, .safetensors or .pth.
    config: the config of the run, which names the network.
    workdir: the folder of the run to make.

  Raises:
    UserError: the folder contains a run, the file cannot be read, or it is of another network.
  """
  if has_progress(workdir):
    raise UserError(f"--workdir={workdir}: contains a run already; choose another")
  check_writable(workdir)
  # The weights are read before the folder is made, so that a wrong file leaves no run behind.
  state = load_pytorch_state(source, config, config.model)
  open_run_folder(workdir, config)
  # A checkpoint like any other, so that every command can use the run.
  with open_checkpoints(workdir / "checkpoints", config.train.keep) as store:
    store.save(state)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  print_line(f"{source}: {count:,} parameters of {config.model.name} -> {workdir}")
