"""The label values of a drawn abdomen: each voxel has one of these."""

# Phantoms in records hold these values, so an organ keeps its number for good.
ORGANS: dict[str, int] = {
  "background": 0,  # air around the patient
  "spleen": 1,
  "kidney_right": 2,
  "kidney_left": 3,
  "gallbladder": 4,
  "liver": 5,
  "stomach": 6,
  "aorta": 7,
  "vena_cava": 8,
  "portal_splenic_vein": 9,
  "pancreas": 10,
  "duodenum": 11,
  "small_bowel": 12,
  "colon": 13,
  "mesenteric_artery": 14,
  "lung": 15,
  "bone": 16,
  "disc": 17,
  "muscle": 18,
  "fat": 19,
  "skin": 20,
}

# Label maps of real patients name these organs too. Phantoms have none of them.
ALL_ORGANS: dict[str, int] = ORGANS | {
  "esophagus": 21,
  "heart": 22,
  "adrenal": 23,
  "urinary_bladder": 24,
  "artery": 25,
  "vein": 26,
  "trachea": 27,
  "soft_tissue": 28,
}
