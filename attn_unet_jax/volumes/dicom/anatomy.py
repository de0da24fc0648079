"""Codes of SNOMED CT for the names of classes, as DICOM's context groups have them.

The groups are CID 7150 (categories) and CID 7151 (what a segment is) of DICOM PS3.16. A side is a
modifier of the organ's code (CID 244).
"""

from __future__ import annotations

import colorsys
import re
from typing import NamedTuple

_GOLDEN_RATIO = 0.618034  # hues that are this far apart stay distinct, however many there are


class Code(NamedTuple):
  """A concept of SNOMED CT: its number and what it means."""

  value: str
  meaning: str


class Anatomy(NamedTuple):
  """What a class is.

  Attributes:
    category: its kind.
    structure: the structure itself.
    side: left or right; None where the name has no side.
  """

  category: Code
  structure: Code
  side: Code | None = None


_STRUCTURE = Code("91723000", "Anatomical Structure")
_ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "Tissue")
_LEFT, _RIGHT = Code("7771000", "Left"), Code("24028007", "Right")
# Words that say the side, and are no part of the structure's name.
SIDES = {"left": _LEFT, "l": _LEFT, "right": _RIGHT, "r": _RIGHT}
STRUCTURES = {
  "pancreas": Code("15776009", "Pancreas"),
  "liver": Code("10200004", "Liver"),
  "spleen": Code("78961009", "Spleen"),
  "stomach": Code("69695003", "Stomach"),
  "gallbladder": Code("28231008", "Gallbladder"),
  "kidney": Code("64033007", "Kidney"),
  "adrenal gland": Code("23451007", "Adrenal gland"),
  "duodenum": Code("38848004", "Duodenum"),
  "small intestine": Code("30315005", "Small intestine"),
  "colon": Code("71854001", "Colon"),
  "rectum": Code("34402009", "Rectum"),
  "esophagus": Code("32849002", "Esophagus"),
  "aorta": Code("15825003", "Aorta"),
  "inferior vena cava": Code("64131007", "Inferior vena cava"),
  "vena cava": Code("35532006", "Vena cava"),
  "portal vein": Code("32764006", "Portal vein"),
  "splenic vein": Code("35819009", "Splenic vein"),
  "superior mesenteric artery": Code("42258001", "Superior mesenteric artery"),
  "superior mesenteric vein": Code("90771006", "Superior Mesenteric Vein"),
  "vein": Code("29092000", "Vein"),
  "pancreatic duct": Code("69930009", "Pancreatic duct"),
  "common bile duct": Code("79741001", "Common bile duct"),
  "bladder": Code("89837001", "Bladder"),
  "prostate": Code("41216001", "Prostate"),
  "uterus": Code("35039007", "Uterus"),
  "lung": Code("39607008", "Lung"),
  "heart": Code("80891009", "Heart"),
}
ABNORMALITIES = {
  "neoplasm": Code("108369006", "Neoplasm"),
  "lesion": Code("52988006", "Lesion"),
  "cyst": Code("367643001", "Cyst"),
}
# Other names of the same, after the words of the side are taken away.
_SYNONYMS = {
  "gall bladder": "gallbladder",
  "adrenal": "adrenal gland",
  "suprarenal gland": "adrenal gland",
  "small bowel": "small intestine",
  "oesophagus": "esophagus",
  "postcava": "inferior vena cava",
  "ivc": "inferior vena cava",
  "portal splenic vein": "vein",
  "portal vein and splenic vein": "vein",
  "splenic portal vein": "vein",
  "sma": "superior mesenteric artery",
  "smv": "superior mesenteric vein",
  "bile duct": "common bile duct",
  "urinary bladder": "bladder",
  "tumour": "neoplasm",
  "tumor": "neoplasm",
  "cancer": "neoplasm",
}
# An organ before or behind an abnormality says where it is: "pancreatic tumour", "liver lesion".
_ABNORMAL_NAMES = (*ABNORMALITIES, *(k for k, v in _SYNONYMS.items() if v in ABNORMALITIES))


def find_anatomy(name: str) -> Anatomy:
  """Finds the codes of a class by its name; those of a tissue where the name is not known.

  Args:
    name: the class, in any spelling: `kidney_left`, `Left Kidney`, `pancreas-tumour`.
  """
  words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
  spelt = [word.lower() for word in re.split(r"[^A-Za-z]+", words) if word]
  sides = {SIDES[word] for word in spelt if word in SIDES}
  # A name with both sides says that the class has both, and no modifier does.
  side = sides.pop() if len(sides) == 1 else None
  core = [word for word in spelt if word not in SIDES]
  known = " ".join(core)
  known = _SYNONYMS.get(known, known)
  if known in STRUCTURES:
    return Anatomy(_STRUCTURE, STRUCTURES[known], side)
  abnormal = [word for word in core if word in _ABNORMAL_NAMES]
  if len(abnormal) == 1:
    word = _SYNONYMS.get(abnormal[0], abnormal[0])
    return Anatomy(_ABNORMAL, ABNORMALITIES[word], side)
  return Anatomy(TISSUE, TISSUE, side)


def clean_label(name: str) -> str:
  """Returns a class's name as a label of DICOM: at most 64 characters, and no backslash in it."""
  # A backslash separates values in DICOM.
  return re.sub(r"[\\\x00-\x1f\x7f]", "_", name)[:64].strip() or "class"


def choose_colour(value: int) -> list[int]:
  """Chooses a colour for a class, RGB from 0 to 255, that differs from those of the others."""
  return [round(255 * part) for part in colorsys.hsv_to_rgb(value * _GOLDEN_RATIO % 1, 0.8, 1)]
