"""The options of the data: its location, labels and folds, and the working grid."""

from dataclasses import dataclass
from typing import Literal

from attn_unet_jax.labels import class_names, find_labelled_classes
from attn_unet_jax.runtime.acceptance import REASONS, Acceptance, parse_acceptance
from attn_unet_jax.runtime.options import NOT_NEGATIVE, Options, Rule, one_of, option

_SPACING = Rule("0.0001 to 100 mm", lambda value: 1e-4 <= value <= 100)
_ACCEPT = Rule(
  f"names out of {', '.join(REASONS)}, separated by commas",
  lambda text: {name.strip() for name in text.split(",")} <= {"", *REASONS},
)
_FOLD = Rule("a number of at least 0, or 'all'", lambda fold: fold == "all" or fold >= 0)
# In steps in which the schedule counts.
_SHARE = Rule(
  "0.001 to 0.999, in thousandths",
  lambda share: 0 < share < 1 and abs(share * 1000 - round(share * 1000)) < 1e-6,
)
_WINDOW = Rule("lower end below the upper", lambda window: window[0] < window[1], whole=True)


@dataclass(frozen=True)
class DataOptions(Options):
  """The options of a data set, of the meaning of its labels, and of the working grid."""

  dataset: str = option("", "Records made by tfds_pancreas.build, such as phantom_ct/demo.")
  dir: str = option("data", "Folder of the records.", is_path=True)
  folder: str = option(
    "", "Or: a folder with imagesTr/NAME.nii.gz and labelsTr/NAME.nii.gz.", is_path=True
  )
  accept: str = option("", f"Doubts about scans to accept: {','.join(REASONS)}.", _ACCEPT)
  accept_changes: bool = option(
    False, "Whether this start goes on although scans or labels changed since the run began."
  )
  labels: str = option("pancreas", "CLASS=VALUE+VALUE,...; names where the data carries names.")
  folds: str = option(
    "", "A list of folds by name, or a JSON file; '': the set's own, or a hash.", is_path=True
  )
  fold: int | Literal["all"] = option(
    0, "Which fold of that list; all: every one, a run in a folder of its own each.", _FOLD
  )
  also: str = option(
    "", "A second data set to train on: records in data.dir, or a folder.", is_path=True
  )
  also_labels: str = option("", "What its labels mean, as data.labels; '': the same.")
  also_folds: str = option(
    "",
    "A list of folds by name, or a JSON file, whose training cases are taken; '': its own, or all.",
    is_path=True,
  )
  also_share: float = option(0.5, "Share of the patches that are of the second data set.", _SHARE)
  boxes: str = option(
    "", "A JSON file of boxes to work inside, by case; '': on whole scans.", is_path=True
  )
  # The paper's grid, and below its patch: 320 x 320 x 192 mm.
  spacing_mm: float = option(2.0, "Isotropic spacing of the working grid, mm.", _SPACING)
  blur_mm: float = option(0.0, "Sd of a Gaussian blur before resampling, mm.", NOT_NEGATIVE)
  target: str = option(
    "interior",
    "What is learnt of the organ; boundary: its outermost voxels.",
    one_of("interior", "boundary"),
  )
  # `nearest` takes one side where two voxels are equally near, as where 1 mm becomes 2 mm. That
  # shifts an organ: a ball of 15 mm loses 0.022 of its DSC (docs/explanation/choices.md).
  label_resampling: Literal["balanced", "nearest", "onehot_linear", "occupancy"] = option(
    "balanced",
    "Labels on the working grid; balanced: no shift; nearest: as 0.1.0; occupancy: soft labels.",
  )
  labelled_slices: tuple[int, int, int] = option(
    (0, 0, 0), "Train on every k-th slice across X, Y, Z alone; zeros: on all.", NOT_NEGATIVE
  )
  normalisation: str = option(
    "window",
    "window: window_hu to [0, 1]; zscore: by mean and sd of the whole scan.",
    one_of("window", "zscore"),
  )
  # The window of Roth et al. 2018.
  window_hu: tuple[float, float] = option(
    (-160.0, 240.0), "Lower and upper end of the intensity window, HU.", _WINDOW
  )
  patch: tuple[int, int, int] = option((160, 160, 96), "Patch size, voxels of the working grid.")
  foreground_choice: Literal["voxels", "classes"] = option(
    "voxels",
    "What is equally likely as a patch's centre: all foreground voxels, or all classes of a case.",
  )
  prepared: str = option(
    "", "Folder of prepared scans that runs share; '': the run's own.", is_path=True
  )

  @property
  def has_soft_labels(self) -> bool:
    """Returns whether a label is the share of each voxel that the class fills."""
    return self.label_resampling == "occupancy"

  @property
  def labelled_sets(self) -> tuple[tuple[bool, ...], ...]:
    """Whether each data set of the run labels each class of the network."""
    own = find_labelled_classes(self.labels)
    if not self.also:
      return (own,)
    text = self.also_labels or self.labels
    also = dict(zip(class_names(text), find_labelled_classes(text), strict=True))
    return own, tuple(also.get(name, False) for name in class_names(self.labels))

  @property
  def acceptance(self) -> Acceptance:
    """The doubts about scans that the user accepts: `accept`, read."""
    return parse_acceptance(self.accept)
