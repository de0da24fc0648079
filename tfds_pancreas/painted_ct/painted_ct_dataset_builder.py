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
from tfds_pancreas.grids import GridConfig, grid_config, spacing_of
from tfds_pancreas.painted_ct.case import Organs, PaintingFiles, paint_case
from tfds_pancreas.painted_ct.maps import find_maps, problems_of, split_maps
from tfds_pancreas.painted_ct.names import organs_of_values
from tfds_pancreas.painted_ct.painting import Recipe

_PAINTINGS = {"train": 8, "validation": 2, "test": 2}
_OFTEN = "8 paintings a map for training, 2 for validation and test"


@dataclass(eq=False)
class PaintedConfig(GridConfig):
  """How often the maps are painted, and how.

  Attributes:
    paintings: of each map, by split.
    recipe: how paintings may differ.
  """

  paintings: Mapping[str, int] = field(default_factory=dict)
  recipe: Recipe = field(default_factory=Recipe)


def make_config(name: str) -> GridConfig:
  """The config of a name such as 'native' or 'iso2mm': the voxels that are painted.

  Raises:
    ValueError: no grid is called so.
  """
  size = spacing_of(name)
  recipe = Recipe(pixel_mm=(size, size), slice_mm=(size, size)) if size else Recipe()
  return replace(
    grid_config(name, PaintedConfig, _OFTEN, paintings=_PAINTINGS, recipe=recipe), spacing_mm=None
  )


class Builder(CheckedBuilder):
  """Painted CT scans of label maps; all paintings of a map are on one side of the split."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """CT scans painted on label maps of real abdomens, after SynthSeg (Billot et al.
2023, Medical Image Analysis 86:102789): the organs' shapes are a real patient's, a little deformed;
the image, and what the map does not name, are synthetic."""
  LABELS: ClassVar = ALL_ORGANS
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "painted_ct is made from label maps of abdomens: --manual_dir is a folder of them (.nii.gz) "
    "with a labels.json that names their values"
  )
  BUILDER_CONFIGS = (
    PaintedConfig(
      name="tiny",
      description="2 paintings a map, 9 mm, for tests.",
      paintings={"train": 2, "validation": 1, "test": 1},
      recipe=Recipe(pixel_mm=(9.0, 9.5), slice_mm=(9.0, 10.0)),
    ),
    PaintedConfig(
      name="demo",
      description=f"{_OFTEN}, pixels of 2.4 to 3.2 mm, slices 2.5 to 5 mm apart.",
      paintings=_PAINTINGS,
      recipe=Recipe(pixel_mm=(2.4, 3.2), slice_mm=(2.5, 5.0)),
    ),
    *(make_config(name) for name in ("native", "iso2mm")),
  )
  make_config = staticmethod(make_config)
  _organs: Organs = ()

  def find_cases(self, root: Path) -> Mapping[str, Sequence[PaintingFiles]]:
    """Every painting of every map that can be painted.

    Raises:
      UserError: maps or names are missing, or maps cannot be painted and may not be skipped.
    """
    maps = find_maps(root)
    self._organs = tuple(organs_of_values(root).items())
    self._left_out = problems_of(maps, self._organs)
    if self._left_out and not self._skip_bad_cases:
      raise UserError(
        f"{len(self._left_out)} of {len(maps)} label maps cannot be painted; correct them, or "
        "leave them out by --skip_bad_cases | " + " | ".join(self._left_out.values())
      )
    split = split_maps([name for name in maps if name not in self._left_out])
    return {
      part: [
        PaintingFiles(f"{name}_{number:02d}", name, maps[name], number)
        for name in names
        for number in range(self.builder_config.paintings[part])
      ]
      for part, names in split.items()
    }

  def reader(self) -> Callable[[PaintingFiles], CheckedCase]:
    """Paints a map."""
    return partial(paint_case, organs=self._organs, recipe=self.builder_config.recipe)

  @property
  def excluded(self) -> Mapping[str, str]:
    """Maps that cannot be painted."""
    return self._left_out
