"""Figures of papers, to stand beside the scores of a run on the same data."""

from collections.abc import Sequence

_FOLDS, _SPLIT = "82 in 4 folds", "61 trained on, 21 tested"
_NESTED = "holistically nested networks, random forest"
_LOCATED = "the same after a stage that locates the organ"
# TCIA Pancreas-CT: DSC of the pancreas as a share, mean and standard deviation over cases.
_PANCREAS_CT = (
  ("Roth et al. 2016, arXiv:1606.07830", _NESTED, 0.780, 0.082, _FOLDS),
  ("Roth et al. 2018, Med. Image Anal. 45", _LOCATED, 0.813, 0.063, _FOLDS),
  ("Oktay et al. 2018, arXiv:1804.03999", "Attention U-Net", 0.821, 0.057, _SPLIT),
  (
    "Oktay et al. 2018, arXiv:1804.03999",
    "Attention U-Net, first trained on 150 other scans",
    0.831,
    0.038,
    _SPLIT,
  ),
)


def list_published(dataset: str, classes: Sequence[str]) -> list[tuple[str, str, str, str]]:
  """Returns paper, method, DSC and cases of published figures on a data set.

  Args:
    dataset: the name of its records, such as `pancreas_ct/native`; figures are of one set alone.
    classes: of the network, of which figures are known of the pancreas.
  """
  if dataset.partition("/")[0] != "pancreas_ct" or "pancreas" not in classes:
    return []
  return [
    (paper, method, f"{mean:.3f} \u00b1 {sd:.3f}", cases)
    for paper, method, mean, sd, cases in _PANCREAS_CT
  ]
