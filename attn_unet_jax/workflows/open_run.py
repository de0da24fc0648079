"""Opens any run, of one network or of all stages of a system."""

import hashlib
from functools import partial
from pathlib import Path

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.stages import forest
from attn_unet_jax.stages.system import SecondStage, locate_organ
from attn_unet_jax.workflows.load_run import LoadedRun, open_run
from attn_unet_jax.workflows.stages.chain import BOUNDARY, FIRST, INTERIOR, second_config


def open_run_or_stages(workdir: Path) -> LoadedRun:
  """Opens a run with its best checkpoint, or those of its stages.

  Raises:
    UserError: there is no run, or its training is not finished.
  """
  config = load_config(workdir / "config.json")
  if config.stages.count == 1:
    return open_run(workdir)
  for part in ("forest.npz", FIRST, INTERIOR, BOUNDARY):
    if not (workdir / part).exists():
      raise UserError(
        f"{workdir}: its stages are not finished ({part} is missing); start attn_unet_jax.main "
        "again to finish them"
      )
  first, interior, boundary = (open_run(workdir / name) for name in (FIRST, INTERIOR, BOUNDARY))
  system = SecondStage(
    config, interior.system, boundary.system, forest.load_forest(workdir / "forest.npz")
  )
  # The first stage looks at the whole scan, the networks of the second only into its box.
  find = partial(
    locate_organ, first=first.system, recipe=first.config, margin_mm=config.stages.box_margin_mm
  )
  # Boxes are grown to the patch of the second stage, whose networks segment them.
  whole = replace_keys(config, {"data.patch": second_config(config).data.patch})
  # The networks have a step each; that of the interior is reported.
  digests = (first.digest, interior.digest, boundary.digest)
  of_forest = hashlib.sha256((workdir / "forest.npz").read_bytes()).hexdigest()
  digest = hashlib.sha256(repr((*digests, of_forest, config.stages)).encode()).hexdigest()
  networks = (*first.networks, *interior.networks, *boundary.networks)
  return LoadedRun(whole, interior.classes, system, interior.step, find, digest, networks=networks)
