"""Experiment files: found by path, or by name from anywhere, and loaded."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from attn_unet_jax.runtime.errors import UserError, format_error

PACKAGED = Path(__file__).parents[1] / "experiments"  # where an installed package has them
_CHECKOUT = Path(__file__).parents[2] / "experiments"


def load_experiment(text: str) -> ConfigDict:
  """Loads the draft of an experiment.

  Args:
    text: a value of `--config`: `PATH.py`, `PATH.py:VARIANT`, `NAME` or `NAME:VARIANT`; a file that
      is not there is looked for by its name among the experiments of the package.

  Raises:
    UserError: there is no such file, it does not load, or it has no such variant.
  """
  place, _, variant = text.partition(":")
  path = find_experiment(place)
  try:
    module = _run_file(path)
    draft = module.get_config(variant) if variant else module.get_config()
  # Ours is one line with a way out already. Whatever else a file raises gets one below.
  except UserError:
    raise
  except Exception as error:  # whatever an experiment file raises
    what = f"{type(error).__name__}: {format_error(error)}"
    raise UserError(f"--config={text}: the experiment file does not load: {what}") from None
  # A file that builds a config of its own would miss keys that a later version adds.
  if not isinstance(draft, ConfigDict):
    raise UserError(
      f"--config={text}: get_config returns {type(draft).__name__}; let it return what "
      "attn_unet_jax.config.default() makes, with what differs"
    )
  return draft


def find_experiment(place: str) -> Path:
  """Returns the file of an experiment.

  Raises:
    UserError: there is none; names those of the package.
  """
  # A file of the user's own comes before one of the package of that name.
  path = Path(place)
  if path.is_file():
    return path
  folder = experiments_folder()
  # So a command of the docs, with experiments/pancreas.py, also works where no clone is.
  found = folder / f"{path.stem}.py"
  if path.suffix in ("", ".py") and found.is_file() and path.stem != "__init__":
    return found
  names = ", ".join(list_experiments())
  raise UserError(
    f"--config={place}: No such file or directory; name an experiment file, such as "
    f"experiments/pancreas.py, or one of the package's: {names}"
  )


def experiments_folder() -> Path:
  """Returns the folder of the package's experiments, installed or in the checkout."""
  return PACKAGED if PACKAGED.is_dir() else _CHECKOUT


def list_experiments() -> list[str]:
  """Returns the names of the package's experiments."""
  # Names of experiments begin with a letter: `__init__.py` is none.
  return sorted(path.stem for path in experiments_folder().glob("[a-z]*.py"))


def _run_file(path: Path) -> ModuleType:
  """Runs an experiment file as a module; files beside it can be imported as `experiments.NAME`."""
  _offer_experiments()
  # By its own name it could hide an installed module, such as one called `test`.
  spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _offer_experiments() -> None:
  """Makes `from experiments import pancreas` find the package's own, if there is no other."""
  # A clone, or a user's own package of this name, comes first.
  if "experiments" in sys.modules or importlib.util.find_spec("experiments"):
    return
  folder = experiments_folder()
  spec = importlib.util.spec_from_file_location(
    "experiments", folder / "__init__.py", submodule_search_locations=[str(folder)]
  )
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  # Entered before it runs, as Python's own import does.
  sys.modules["experiments"] = module
  spec.loader.exec_module(module)
