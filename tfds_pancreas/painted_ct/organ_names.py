"""Which organ each value of a label map is.

The names lie beside the maps, in labels.json or dataset.json: {"1": "spleen", "2": "pancreas"}, at
the top or under "labels". Or "labels" names a list of `label_names/`. What a value is called
decides what is drawn and painted: the first part of ORGAN_OF_NAME that is in the name.
"""

from collections.abc import Mapping
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json

PACKAGED = Path(__file__).parent / "label_names"
_BESIDE = ("labels.json", "dataset.json")

# The first part that fits decides, so a special name stands before the general one within it:
# gallbladder before bladder, mesenteric artery before artery.
ORGAN_OF_NAME: tuple[tuple[str, str], ...] = (
  ("background", "background"), ("soft_tissue", "soft_tissue"), ("right_kidney", "kidney_right"),
  ("kidney_right", "kidney_right"), ("left_kidney", "kidney_left"),
  ("kidney_left", "kidney_left"), ("gallbladder", "gallbladder"), ("gall_bladder", "gallbladder"),
  ("bladder", "urinary_bladder"), ("adrenal", "adrenal"), ("pancrea", "pancreas"),
  ("duodenum", "duodenum"), ("stomach", "stomach"), ("esophag", "esophagus"),
  ("colon", "colon"), ("rectum", "colon"), ("bowel", "small_bowel"), ("intestine", "small_bowel"),
  ("portal", "portal_splenic_vein"), ("splenic_vein", "portal_splenic_vein"),
  ("vena_cava", "vena_cava"), ("postcava", "vena_cava"), ("aorta", "aorta"),
  ("mesenteric_artery", "mesenteric_artery"), ("artery", "artery"), ("brachiocephalic_trunk",
  "artery"), ("vein", "vein"), ("vena", "vein"), ("heart", "heart"), ("atri", "heart"),
  ("lung", "lung"), ("trachea", "trachea"), ("liver", "liver"), ("spleen", "spleen"),
  ("vertebra", "bone"), ("rib_", "bone"), ("hip", "bone"), ("sacrum", "bone"), ("femur", "bone"),
  ("humerus", "bone"), ("scapula", "bone"), ("clavicula", "bone"), ("sternum", "bone"),
  ("skull", "bone"), ("bone", "bone"), ("costal", "bone"), ("spinal_cord", "disc"),
  ("disc", "disc"), ("brain", "disc"), ("gluteus", "muscle"), ("autochthon", "muscle"),
  ("psoas", "muscle"), ("muscle", "muscle"), ("prostate", "soft_tissue"), ("face", "soft_tissue"),
  ("thyroid", "soft_tissue"), ("fat", "fat"), ("skin", "skin"),
)  # fmt: skip


def read_organs_of_values(folder: Path) -> dict[int, str]:
  """Reads the organ (a name of ALL_ORGANS) of each label value.

  Args:
    folder: of the label maps and their labels.json or dataset.json.

  Raises:
    UserError: no names are there, they are unreadable, or one of them is no organ that is known.
  """
  path = _find_names_file(folder)
  organs = {0: "background"}
  for value, name in _read_names(path).items():
    organ = find_organ(name)
    if organ is None:
      raise UserError(
        f"{path}: value {value} is called {name!r}, which is no organ that can be painted; call it "
        "'soft_tissue', or by a name such as 'kidney_left', 'vertebrae', 'colon'"
      )
    organs[value] = organ
  if "pancreas" not in organs.values():
    raise UserError(f"{path}: no value is called pancreas; name the pancreas's value in it")
  return organs


def find_organ(name: str) -> str | None:
  """Returns the organ that a name means, or None."""
  plain = name.lower().replace(" ", "_").replace("-", "_").replace("oesoph", "esoph")
  return next((organ for part, organ in ORGAN_OF_NAME if part in plain), None)


def _find_names_file(folder: Path) -> Path:
  path = next((folder / name for name in _BESIDE if (folder / name).is_file()), None)
  if path is None:
    raise UserError(
      f"{folder}: nothing says which organ a label value is; write {folder}/labels.json with "
      f'{{"1": "spleen", "2": "pancreas", ...}}, or with {{"labels": "NAME"}} and one of '
      f"{_list_packaged()}"
    )
  return path


def _list_packaged() -> list[str]:
  return sorted(path.stem for path in PACKAGED.glob("*.json"))


def _read_names(path: Path) -> Mapping[int, str]:
  """Reads the name of each value, from a mapping of values to names or of names to values."""
  try:
    found = read_json(path)
    found = found.get("labels", found)
    if isinstance(found, str):
      if found not in _list_packaged():
        raise UserError(
          f"{path}: no list of names is called {found!r}; there are {_list_packaged()}"
        )
      return _read_names(PACKAGED / f"{found}.json")
    # The Decathlon maps values to names, nnU-Net names to values.
    pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in found.items()]
    names = {int(value): str(name) for value, name in pairs}
  except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
    raise UserError(
      f"{path}: not readable as names of label values ({error}); write "
      '{"1": "spleen", "2": "pancreas", ...}'
    ) from None
  if len(names) < len(pairs):
    raise UserError(f"{path}: a label value has two names; name each value once")
  return names
