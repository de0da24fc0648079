import pydicom.sr._concepts_dict as tables
import pytest

from attn_unet_jax.volumes.dicom import anatomy
from attn_unet_jax.volumes.dicom.anatomy import clean_label, find_anatomy

CATEGORIES, TYPES, SIDES = 7150, 7151, 244  # DICOM's groups of codes


def find_groups(code):
  """The groups that contain a code with this meaning, by the tables of another package."""
  return {
    group
    for values in tables.concepts["SCT"].values()
    for value, (meaning, groups) in values.items()
    if (value, meaning) == (code.value, code.meaning)
    for group in groups
  }


@pytest.mark.parametrize("name", [*anatomy.STRUCTURES, *anatomy.ABNORMALITIES])
def test_every_code_means_what_is_said_of_it(name):
  found = find_anatomy(name)
  assert CATEGORIES in find_groups(found.category)
  # Two of them stand in groups of vessels, and not in that of segments.
  assert TYPES in find_groups(found.structure) or name in ("vena cava", "superior mesenteric vein")
  assert find_groups(found.structure)


def test_sides_and_the_unknown_have_codes_of_dicom():
  assert all(SIDES in find_groups(side) for side in anatomy.SIDES.values())
  assert {CATEGORIES, TYPES} <= find_groups(anatomy.TISSUE)


@pytest.mark.parametrize(
  ("name", "code", "side"),
  [
    ("pancreas", "15776009", None),
    ("Pancreas", "15776009", None),
    ("kidney_left", "64033007", "Left"),
    ("Right Kidney", "64033007", "Right"),
    ("LeftKidney", "64033007", "Left"),
    ("l-kidney", "64033007", "Left"),
    ("adrenal_gland_right", "23451007", "Right"),
    ("gall_bladder", "28231008", None),
    ("oesophagus", "32849002", None),
    ("portal_vein_and_splenic_vein", "29092000", None),
    ("pancreas_tumour", "108369006", None),
    ("tumor", "108369006", None),
    ("liver lesion", "52988006", None),
    ("kidneys", "85756007", None),
    ("class_7", "85756007", None),
    ("", "85756007", None),
  ],
)
def test_names_in_any_spelling(name, code, side):
  found = find_anatomy(name)
  assert found.structure.value == code
  assert (found.side and found.side.meaning) == side


def test_labels_fit_into_dicom():
  assert clean_label("a\\b\n" + "x" * 99) == "a_b_" + "x" * 60
  assert clean_label("Bauchspeicheldrüse") == "Bauchspeicheldrüse"
  assert clean_label(" ") == "class"
