"""What pyproject.toml cannot say: where the experiments go, and which requirements are run-time."""

from pathlib import Path

from setuptools import find_packages, setup

_TESTS = "# For tests alone:"  # the line of requirements.txt below which nothing is run-time


def read_requirements() -> list[str]:
  """Returns the run-time requirements: the lines of requirements.txt above those for tests."""
  text = (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8")
  lines = (line.partition("#")[0].strip() for line in text.partition(_TESTS)[0].splitlines())
  return [line for line in lines if line]


setup(
  install_requires=read_requirements(),
  # Experiments lie at the top of a checkout, and inside the package where it is installed: a
  # top-level package called `experiments` would be in the way of everybody else's.
  packages=[
    *find_packages(include=["attn_unet_jax*", "tfds_pancreas*"]),
    "attn_unet_jax.experiments",
  ],
  package_dir={"attn_unet_jax.experiments": "experiments"},
)
