"""Exports a run, or the mean of several, for use without this program: network and contract."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax import __version__
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.inference import run_exported
from attn_unet_jax.inference.postprocess import Postprocessing
from attn_unet_jax.patches.batch import output_shape
from attn_unet_jax.runs.release import NOTICE, is_release, read_release
from attn_unet_jax.runtime.errors import UserError, WriteError
from attn_unet_jax.runtime.files import (
  atomic_write,
  check_writable,
  read_json_object,
  write_text,
)
from attn_unet_jax.volumes.volume import round_spacing
from attn_unet_jax.workflows.export_network import ExportedNetwork, ExportFormat, export_network
from attn_unet_jax.workflows.fold_runs import expand_fold_runs
from attn_unet_jax.workflows.load_run import BestCheckpoint, digest_networks, load_networks
from attn_unet_jax.workflows.model_card import CARD, ExportedAs, describe_model
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.scored_network import explain_other_scores

_FORMAT = 1
_RUNNER = "run_exported.py"
# Without the names of cases, which may be those of patients.
_SCORES = ("checkpoint_step", "cases", "classes", "counts")
# What `find_outside` does, for those who write a runner of their own.
_BODY = (
  "HU > -500, opened in axial planes by round(3 mm / spacing) steps of 4 neighbours; of that the "
  "6-connected pieces with 0.05 of the voxels of the largest, if its median is -200 to 200 HU, "
  "else the whole scan; dilated within HU > -500 by round(12 mm / spacing) steps of 6 neighbours; "
  "and of the rest all 6-connected pieces but those that reach a side of the axial planes and are "
  "at least half below -900 HU"
)
_LICENCE = "Apache-2.0 for the program and run_exported.py; the network's {}"


def export_run(
  workdirs: Sequence[Path], output: Path, export_format: ExportFormat = "stablehlo"
) -> list[Path]:
  """Writes network, contract, runner and model card, and returns these files.

  Earlier ones of these names are replaced.

  Args:
    workdirs: the run, or several whose probabilities are averaged.
    output: a folder, or the network's file in it.
    export_format: that of the network; only `stablehlo` has a runner.

  Raises:
    UserError: there is no run, it cannot be exported, or the output cannot be written.
  """
  path = _name_network(output, export_format)
  # Before any checkpoint is read.
  check_writable(path.parent)
  workdirs = expand_fold_runs(workdirs)
  # Of each run its networks: one, but of a release of several.
  runs = [load_networks(workdir) for workdir in workdirs]
  for workdir, (member, *_) in zip(workdirs, runs, strict=True):
    _check_exportable(workdir, member)
    _check_same_windows(workdirs[0], runs[0][0], workdir, member)
  # It checks whether the runs fit together, and knows the steps that all of them take.
  steps = open_ensemble(workdirs).postprocessing
  exported = export_network(workdirs, [one for members in runs for one in members], export_format)
  contract = {
    **_describe_network(path, exported, workdirs),
    **_describe_scan(runs[0][0], steps),
    "runs": [_describe_run(*one, steps) for one in zip(workdirs, runs, strict=True)],
  }
  card = "\n".join(
    describe_model(workdir, exported=ExportedAs(member.step, steps))
    for workdir, (member, *_) in zip(workdirs, runs, strict=True)
  )
  return _write_files(path, exported, contract, card)


def _name_network(output: Path, export_format: ExportFormat) -> Path:
  """Returns the network's file.

  Raises:
    UserError: the output can be neither a folder nor such a file.
  """
  suffix = f".{export_format}"
  # A folder may be called `a.onnx`.
  if output.suffix == suffix and not output.is_dir():
    return output
  if output.is_file() or output.suffix in (".onnx", ".stablehlo", ".json", ".py"):
    raise UserError(
      f"--output={output}: name a folder, or a file that ends in {suffix}, for "
      f"--format={export_format}"
    )
  return output / f"network{suffix}"


def _check_exportable(workdir: Path, member: BestCheckpoint) -> None:
  config = member.config
  if config.data.boxes:
    raise UserError(
      f"{workdir}: works inside boxes (config.data.boxes), and such a run cannot be exported; "
      "use predict --boxes"
    )
  # A network of one's own that does not say is treated like one whose answer depends on its window.
  depends_on = getattr(member.module, "answer_depends_on", "window")
  # A window that the config itself gives does not grow.
  grows = config.inference.window == "plan" and depends_on == "surroundings"
  if config.inference.window == "large" or (grows and not any(config.inference.patch)):
    raise UserError(
      f"{workdir}: its windows adapt to scan and memory (config.inference.window="
      f"{config.inference.window}), and an exported network has one window; a run with "
      "config.inference.window=patch can be exported"
    )


def _check_same_windows(
  one: Path, first: BestCheckpoint, other: Path, member: BestCheckpoint
) -> None:
  ours, theirs = _windows(first), _windows(member)
  for key, value in ours.items():
    if theirs[key] != value:
      raise UserError(
        f"{other}: has windows of {key} {theirs[key]}, and {one} of {value}; runs that are "
        "exported as one must have the same windows"
      )


def _windows(member: BestCheckpoint) -> dict[str, Any]:
  config, margin = member.config, member.module.output_margin
  return {
    "shape": config.window,
    "answer": output_shape(config.window, margin),
    "margin": margin,
    "overlap": config.inference.overlap,
    "region": "whole" if config.inference.window == "patch" else "body",
  }


def _describe_network(
  path: Path, exported: ExportedNetwork, workdirs: Sequence[Path]
) -> dict[str, Any]:
  # Of a release its licence is known; of any other run only its owner can say one.
  releases = [read_release(workdir) for workdir in workdirs if is_release(workdir)]
  known = " and ".join(dict.fromkeys(f"is {one.licence}" for one in releases))
  owners = "is for its owner to say" if len(releases) < len(workdirs) else ""
  return {
    "format": _FORMAT,
    "program": f"attn_unet_jax {__version__}",
    "licence": _LICENCE.format(", and ".join(filter(None, [known, owners]))),
    "notice": NOTICE,
    "network": {"file": path.name, **exported.about},
  }


def _describe_scan(first: BestCheckpoint, steps: Postprocessing) -> dict[str, Any]:
  config: RunConfig = first.config
  return {
    "scan": {
      "unit": "HU",
      "axes": "RAS",
      # Rounded as for the working grid, which has to have as many voxels there.
      "spacing_mm": float(round_spacing(config.data.spacing_mm)),
      "blur_mm": config.data.blur_mm,
      "interpolation": "linear, about the same centre; edges continued; rounded to int16",
    },
    "windows": {
      **_windows(first),
      "weights": "exp(-d^2 / 2), d from the centre in eighths of the answer; 1e-3 at least",
      "outside": "background",
    },
    "target": config.data.target,
    "classes": {name: value for value, name in enumerate(("background", *first.classes))},
    "after": {
      "within_body": config.inference.within_body,
      "body": _BODY,
      **dataclasses.asdict(steps),
      "one_piece": list(config.one_piece_values),
      "one_piece_weights": "a voxel counts log(q / (1 - q)) + 1e-6, q = clip(p, 0.5, 1 - 1e-6)",
      "largest_component": config.inference.largest_component,
    },
  }


def _describe_run(
  workdir: Path, members: Sequence[BestCheckpoint], steps: Postprocessing
) -> dict[str, Any]:
  member = members[0]  # whose config and step are those of all
  path = workdir / "evaluation" / "summary.json"
  summary = read_json_object(path, "remove it to export without scores, or evaluate again")
  # The scores of another network, or of more than the network, say nothing of this file.
  ours = not explain_other_scores(summary, member.step, steps)
  data = member.config.data
  return {
    "name": workdir.resolve().name,
    "network": member.config.model.name,
    "checkpoint_step": member.step,
    "networks": len(members),
    "digest": digest_networks(members),
    "normalisation": data.normalisation,
    "window_hu": data.window_hu if data.normalisation == "window" else None,
    "test_scores": {key: summary.get(key) for key in _SCORES} if ours else None,
  }


def _write_files(
  path: Path, exported: ExportedNetwork, contract: dict[str, Any], card: str
) -> list[Path]:
  described, runner = path.with_suffix(".json"), path.with_name(_RUNNER)
  about, has_runner = path.with_name(CARD), path.suffix == ".stablehlo"
  # The module itself: what is tested here is what is passed on.
  text = Path(run_exported.__file__).read_text(encoding="utf-8")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
      temporary.write_bytes(exported.content)
    # JSON has no NaN, which Python would write and other readers refuse.
    write_text(described, json.dumps(contract, indent=2, allow_nan=False) + "\n")
    # It calls JAX, and can do nothing with a file of ONNX.
    if has_runner:
      write_text(runner, text)
    write_text(about, card)
  except OSError as error:
    raise WriteError(error.filename or path, error) from None
  return [path, described, *([runner] if has_runner else []), about]
