"""The TFDS builder of painted label maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.grids import GridConfig, make_grid_config, parse_grid_name
from tfds_pancreas.painted_ct.label_maps import find_map_problems, find_maps, split_maps
from tfds_pancreas.painted_ct.painted_case import PaintingJob, paint_case
from tfds_pancreas.painted_ct.painting import PaintingRecipe

_PAINTINGS = {"train": 8, "validation": 2, "test": 2}
_OFTEN = "8 paintings a map for training, 2 for validation and test"


@dataclass(eq=False)
class PaintedConfig(GridConfig):
  """The number of paintings of each map, and how they may differ.

  Attributes:
    paintings: of each map, by split.
    recipe: how paintings may differ.
  """

  paintings: Mapping[str, int] = field(default_factory=dict)
  recipe: PaintingRecipe = field(default_factory=PaintingRecipe)


def make_config(name: str) -> GridConfig:
  """Returns the config of a name such as 'native' or 'iso2mm': the voxels that are painted.

  Raises:
    ValueError: no grid is called so.
  """
  size = parse_grid_name(name)
  recipe = (
    PaintingRecipe(pixel_mm=(size, size), slice_mm=(size, size)) if size else PaintingRecipe()
  )
  config = make_grid_config(name, PaintedConfig, _OFTEN, paintings=_PAINTINGS, recipe=recipe)
  return replace(config, spacing_mm=None)  # painted on that grid, so there is nothing to resample


class Builder(CheckedBuilder):
  """The builder of CT scans painted on label maps.

  All paintings of a map are in one split: no anatomy is trained on and tested on.
  """

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """CT scans painted on label maps of real abdomens, after SynthSeg (Billot et al.
2023, Medical Image Analysis 86:102789): the organs' shapes are a real patient's, a little deformed;
the image, and what the map does not name, are synthetic."""
  LABELS: ClassVar = ALL_ORGANS
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "painted_ct is made from label maps of abdomens: --manual_dir is a folder of them (.nii.gz) "
    "with a labels.json that names their values, or of such folders"
  )
  BUILDER_CONFIGS = (
    PaintedConfig(
      name="tiny",
      description="2 paintings a map, 9 mm, for tests.",
      paintings={"train": 2, "validation": 1, "test": 1},
      recipe=PaintingRecipe(pixel_mm=(9.0, 9.5), slice_mm=(9.0, 10.0)),
    ),
    PaintedConfig(
      name="demo",
      description=f"{_OFTEN}, pixels of 2.4 to 3.2 mm, slices 2.5 to 5 mm apart.",
      paintings=_PAINTINGS,
      recipe=PaintingRecipe(pixel_mm=(2.4, 3.2), slice_mm=(2.5, 5.0)),
    ),
    # For training whose steps paint anew: few completions of each map, each a little deformed. The
    # paintings that are stored are what validation and test cases are scored on.
    PaintedConfig(
      name="maps",
      description="2 paintings a map, 2 mm, to be painted anew in every step of a training.",
      paintings={"train": 2, "validation": 2, "test": 2},
      recipe=PaintingRecipe(pixel_mm=(2.0, 2.0), slice_mm=(2.0, 2.0)),
    ),
    *(make_config(name) for name in ("native", "iso2mm")),
  )
  make_config = staticmethod(make_config)

  def find_cases(self, root: Path) -> Mapping[str, Sequence[PaintingJob]]:
    """Lists every painting of every map that can be painted.

    Raises:
      UserError: maps or names are missing, or maps cannot be painted and may not be skipped.
    """
    # Maps are tried before they are split, so that a bad one leaves no split short of paintings.
    maps = find_maps(root)
    self._left_out = find_map_problems(maps)
    if self._left_out and not self._skip_bad_cases:
      raise UserError(
        f"{len(self._left_out)} of {len(maps)} label maps cannot be painted; correct them, or "
        "leave them out by --skip_bad_cases | " + " | ".join(self._left_out.values())
      )
    split = split_maps([name for name in maps if name not in self._left_out])
    return {
      part: [
        PaintingJob(f"{name}_{number:02d}", name, maps[name], number)
        for name in names
        for number in range(self.builder_config.paintings[part])
      ]
      for part, names in split.items()
    }

  def get_case_reader(self) -> Callable[[PaintingJob], CheckedCase]:
    """Returns the function that paints a map."""
    return partial(paint_case, recipe=self.builder_config.recipe)

  @property
  def case_exclusions(self) -> Mapping[str, str]:
    """The maps that cannot be painted, each with the reason."""
    return self._left_out
