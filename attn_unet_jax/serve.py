"""Answers scans over HTTP with a trained run: masks and JSON for programs, 3D Slicer and OHIF.

  python -m attn_unet_jax.serve --workdir=runs/a
  python -m attn_unet_jax.serve --workdir=runs/a,runs/b --dicomweb=http://127.0.0.1:8042/dicom-web
  python -m attn_unet_jax.serve --workdir=runs/a --host=0.0.0.0 --token_file=TOKEN

A scan is a NIfTI file or a .zip of a DICOM series: POST /jobs, then GET /jobs/ID and
/jobs/ID/mask. Viewers speak to it as to a MONAI Label server, by /info/ and /infer/NAME. Scans are
segmented one after the other, as by predict; the others wait. Nothing is kept but with --keep. With
--dicomweb series are read from a DICOM archive, and masks are stored in it on demand. The service
listens on this machine alone unless --host and --token_file say otherwise. It needs the extra
serve.
"""

from pathlib import Path
from typing import Any, cast

from absl import flags

from attn_unet_jax.runs.builtin import announce_releases, choose_standard, find_runs
from attn_unet_jax.runtime import process, xla
from attn_unet_jax.runtime.console import print_line

_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run; or several, a,b,c, whose answers are averaged; builtin:NAME as of predict.",
)
_HOST = flags.DEFINE_string(
  "host", "127.0.0.1", "Address to listen at; another one than this machine's needs a token."
)
_PORT = flags.DEFINE_integer(
  "port",
  8000,
  "Port to listen at; 0 takes one that is free, and says which.",
  lower_bound=0,
  upper_bound=65535,
)
_TOKEN_FILE = flags.DEFINE_string(
  "token_file",
  None,
  "File with the token, 16 characters or more, that requests must have in their header "
  "Authorization: Bearer TOKEN.",
)
_ALLOW_ORIGINS = flags.DEFINE_list(
  "allow_origins",
  [],
  "Pages in browsers that may ask, such as https://viewer.example, separated by commas.",
)
_MAX_UPLOAD_MIB = flags.DEFINE_integer(
  "max_upload_mib", 2048, "Largest scan that is taken, in MiB as it is sent.", lower_bound=1
)
_MAX_SECONDS = flags.DEFINE_float(
  "max_seconds",
  900.0,
  "Time from the arrival of a scan to its mask, the wait included, after which it is broken off.",
  lower_bound=1.0,
)
_MAX_WAITING = flags.DEFINE_integer(
  "max_waiting", 8, "Scans that may wait while another is segmented.", lower_bound=1
)
_EXPIRY_SECONDS = flags.DEFINE_float(
  "expiry_seconds",
  900.0,
  "Time after which a mask that nobody has fetched, or a scan that nobody has used, is removed.",
  lower_bound=1.0,
)
_KEEP = flags.DEFINE_string("keep", None, "Folder where every mask and its JSON stay.")
_DICOMWEB = flags.DEFINE_string(
  "dicomweb", None, "Root of a DICOM archive's DICOMweb: where series are and masks are stored."
)
_DICOMWEB_AUTH_FILE = flags.DEFINE_string(
  "dicomweb_auth_file",
  None,
  "File with the header Authorization for the archive, such as Bearer TOKEN.",
)
_ENGINE = flags.DEFINE_enum(
  "engine",
  "auto",
  ["auto", "jax", "openvino"],
  "What computes the network, as of predict.",
)


def main() -> None:
  """Serves what the flags say."""
  from attn_unet_jax.serving.archive import read_archive  # these load JAX
  from attn_unet_jax.serving.options import ServiceOptions, read_secret
  from attn_unet_jax.serving.run_service import run_service
  from attn_unet_jax.workflows.options import AnswerOptions, EngineOptions

  # Files and not values: a command's arguments can be read in the list of processes.
  token, proof = _TOKEN_FILE.value, _DICOMWEB_AUTH_FILE.value
  # Flags with a default have values; `or` says so to the type checker.
  options = ServiceOptions(
    host=_HOST.value or "",
    port=_PORT.value or 0,
    token=read_secret(Path(token), "--token_file") if token else "",
    origins=tuple(_ALLOW_ORIGINS.value or []),
    max_upload_mib=_MAX_UPLOAD_MIB.value or 0,
    max_seconds=_MAX_SECONDS.value or 0.0,
    max_waiting=_MAX_WAITING.value or 0,
    expiry_seconds=_EXPIRY_SECONDS.value or 0.0,
    keep=Path(_KEEP.value) if _KEEP.value else None,
    archive=read_archive(
      _DICOMWEB.value, read_secret(Path(proof), "--dicomweb_auth_file") if proof else ""
    ),
  )
  missing = process.describe_missing("workdir", __doc__ or "")
  workdirs = find_runs(_WORKDIR.value or choose_standard(missing))
  announce_releases(workdirs)
  print_line(f"device: {xla.describe_devices()}")
  # The other options of an answer come with each request.
  answers = AnswerOptions(engine=EngineOptions(cast(Any, _ENGINE.value)))
  run_service(workdirs, answers, options)


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
