"""How dense each tissue is on CT: the one table of Hounsfield units, with its sources.

`TissueDensity.hu` gives the mean and the sd between patients in three contrast phases: unenhanced,
pancreatic (about 40 s after injection) and portal venous (about 70 s).

Sources:
  Unenhanced: means measured within the labels of the 3 mm abdominal scan and label map that
  TotalSegmentator carries as test files (eroded by a voxel): spleen 35, kidneys 14 and 21,
  gallbladder 3, liver 46, stomach wall and content 37 (median), aorta 44, vena cava 43, portal and
  splenic vein 41, pancreas -1 (shrunken, fatty; a healthy one is near 40), small bowel 25, muscle
  13 to 51, vertebrae 126 to 168, ribs 40 to 260, lung -770 to -790; subcutaneous fat about -100.
  The sd between patients: liver 58 +- 9 (Int J Legal Med 2019;133:1861, 64 non-pathologic livers).
  Pancreatic phase: pancreas 112 +- 15 to 128 +- 17 (526 patients, fixed delay or bolus tracking,
  300 and 370 mgI/ml; synapse.koreamed.org/articles/1004370).
  Portal phase: spleen 93 (measured under the expert mask of a contrast scan of the Medical
  Segmentation Decathlon); the others follow the usual order kidney > veins > aorta > liver =
  spleen > pancreas > bowel wall > muscle with the sd of the pancreas above, about 15 %.
  `slow` and `fine` (sd within an organ) are such that with the noise of the scanner an organ's sd
  comes to the 11 to 27 HU measured within the organs of the two scans.
"""

from dataclasses import dataclass

# Share of scans in each phase. Most scans of the pancreas are made with contrast agent.
PHASES: dict[str, float] = {"unenhanced": 0.12, "pancreatic": 0.33, "portal": 0.55}


@dataclass(frozen=True)
class TissueDensity:
  """The density of a tissue in HU.

  Attributes:
    hu: (mean, sd between patients) by phase, in the order of PHASES.
    slow: sd within the organ of what varies over some 30 mm.
    fine: sd within the organ of what varies over some 5 mm.
  """

  hu: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
  slow: float = 3.0
  fine: float = 4.0


def _same_in_all_phases(
  mean: float, sd: float, slow: float = 3.0, fine: float = 4.0
) -> TissueDensity:
  """Returns the density of a tissue that takes up no contrast agent."""
  return TissueDensity(((mean, sd),) * 3, slow, fine)


TISSUES: dict[str, TissueDensity] = {
  "air": _same_in_all_phases(-1000, 0, 0, 0),
  "lung": _same_in_all_phases(-790, 30, 25, 45),
  "fat": _same_in_all_phases(-103, 5, 5, 8),
  "skin": _same_in_all_phases(0, 10),
  "muscle": TissueDensity(((45, 7), (55, 7), (62, 7)), 5, 9),
  "bone": _same_in_all_phases(165, 30, 30, 60),
  "disc": _same_in_all_phases(70, 12, 6, 8),
  "spleen": TissueDensity(((45, 6), (125, 18), (108, 15)), 5, 5),
  "kidney": TissueDensity(((28, 6), (165, 22), (175, 22)), 8, 10),
  "gallbladder": _same_in_all_phases(6, 6, 2, 3),
  "liver": TissueDensity(((52, 9), (75, 12), (103, 14)), 4, 5),
  "bowel_wall": TissueDensity(((38, 8), (102, 18), (90, 15)), 7, 9),
  "aorta": TissueDensity(((43, 4), (270, 45), (145, 22)), 3, 3),
  "vena_cava": TissueDensity(((42, 4), (95, 25), (120, 22)), 10, 4),
  "portal_splenic_vein": TissueDensity(((42, 4), (140, 28), (158, 22)), 4, 3),
  "pancreas": TissueDensity(((42, 8), (115, 16), (96, 15)), 5, 9),
  "soft_tissue": TissueDensity(((40, 8), (60, 10), (70, 10)), 6, 8),
}

# Parts of an organ's name, and the tissue it then is. The first that fits decides, so a special
# name stands before the general one within it: gallbladder before bladder, portal vein before vein.
TISSUE_OF_NAME: tuple[tuple[str, str], ...] = (
  ('background', 'air'), ('lung', 'lung'), ('trachea', 'air'), ('skin', 'skin'), ('fat', 'fat'),
  ('disc', 'disc'), ('brain', 'disc'), ('bone', 'bone'), ('rib', 'bone'), ('vertebra', 'bone'),
  ('hip', 'bone'), ('sacrum', 'bone'), ('femur', 'bone'), ('humerus', 'bone'), ('scapula', 'bone'),
  ('clavicula', 'bone'), ('gluteus', 'muscle'), ('autochthon', 'muscle'), ('iliopsoas', 'muscle'),
  ('muscle', 'muscle'), ('spleen', 'spleen'), ('kidney', 'kidney'), ('gallbladder', 'gallbladder'),
  ('bladder', 'gallbladder'), ('liver', 'liver'), ('portal', 'portal_splenic_vein'),
  ('splenic_vein', 'portal_splenic_vein'), ('vena_cava', 'vena_cava'), ('vein', 'vena_cava'),
  ('vena', 'vena_cava'), ('artery', 'aorta'), ('arteria', 'aorta'), ('aorta', 'aorta'),
  ('heart', 'vena_cava'), ('pancreas', 'pancreas'), ('stomach', 'bowel_wall'),
  ('esophagus', 'bowel_wall'), ('oesophagus', 'bowel_wall'), ('duodenum', 'bowel_wall'),
  ('bowel', 'bowel_wall'), ('colon', 'bowel_wall'), ('adrenal', 'bowel_wall'),
)  # fmt: skip


def find_tissue(organ: str) -> str:
  """Returns the tissue (a name of TISSUES) of an organ's name; 'soft_tissue' for an unknown one."""
  return next((tissue for part, tissue in TISSUE_OF_NAME if part in organ.lower()), "soft_tissue")
