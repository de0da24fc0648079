"""The networks that come with the program: `builtin:NAME` in the place of a run's folder.

Each is a release in the package's own folder. Names are resolved here and nowhere else; the rest of
the program sees the folder of a run.
"""

from collections.abc import Iterable
from pathlib import Path

from attn_unet_jax.runs.release import is_release, read_release, require_no_release
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError

PREFIX = "builtin:"
# What `predict` and `serve` use where no run is named.
STANDARD = f"{PREFIX}pancreas"
FOLDER = Path(__file__).resolve().parents[1] / "builtin"


def list_builtin() -> list[str]:
  """Returns the names of the networks that come with the program, as in `--workdir`."""
  # Built without its data files the package has no networks, and works with runs all the same.
  if not FOLDER.is_dir():
    return []
  return sorted(f"{PREFIX}{path.name}" for path in FOLDER.iterdir() if is_release(path))


def choose_standard(missing: str) -> str:
  """Returns the network that is used where no run is named.

  Args:
    missing: what to say where it does not come with this version.

  Raises:
    UserError: it does not.
  """
  if STANDARD not in list_builtin():
    raise UserError(missing)
  return STANDARD


def find_run(text: str) -> Path:
  """Returns the folder of a run that is read: of a network of the program, or the path itself.

  Raises:
    UserError: no network of that name comes with the program; names those that do.
  """
  if not text.startswith(PREFIX):
    return Path(text)
  there = list_builtin()
  if text not in there:
    named = f"there are {', '.join(there)}" if there else "none comes with this version"
    raise UserError(f"{text}: no such network; {named}, and a folder names a run of your own")
  return FOLDER / text.removeprefix(PREFIX)


def split_runs(text: str, flag: str) -> list[str]:
  """Splits the names of runs at their commas; a folder whose own name has commas is one run.

  Args:
    text: the value of the flag.
    flag: its name, for the message.

  Raises:
    UserError: a name is empty.
  """
  if Path(text).is_dir() or "," not in text:
    return [text]
  names = [name.strip() for name in text.split(",")]
  if not all(names):
    raise UserError(f"--{flag}={text}: an empty name; write --{flag}=runs/a,runs/b")
  return names


def find_runs(text: str) -> list[Path]:
  """Reads `--workdir`: one run, or several with commas between them; `builtin:NAME` is one too.

  A folder whose own name has commas is one run.

  Raises:
    UserError: a name is empty or there twice, or no such network comes with the program.
  """
  workdirs = [find_run(name) for name in split_runs(text, "workdir")]
  # By resolved path: a run under two names would count twice in the mean.
  if len({workdir.resolve() for workdir in workdirs}) < len(workdirs):
    raise UserError(f"--workdir={text}: a run is there twice")
  return workdirs


def find_own_run(text: str, way_out: str) -> Path:
  """Returns the folder of a run that is written into.

  Args:
    text: as of `--workdir`.
    way_out: what to do where it is a release or a network of the program, for the message.

  Raises:
    UserError: it is one.
  """
  if text.startswith(PREFIX):
    raise UserError(
      f"--workdir={text}: comes with the program, and nothing is written into it; {way_out}"
    )
  require_no_release(Path(text), way_out)
  return Path(text)


def name_run(workdir: Path) -> str:
  """Returns what a run is called: its folder, or `builtin:NAME`."""
  return f"{PREFIX}{workdir.name}" if workdir.parent == FOLDER else str(workdir)


def announce_releases(workdirs: Iterable[Path]) -> None:
  """Prints a line for each release among runs: what it learnt, and what it is not.

  Raises:
    UserError: a file of it is damaged.
  """
  for workdir in workdirs:
    if is_release(workdir):
      print_line(f"{name_run(workdir)}: {read_release(workdir).describe()}")
