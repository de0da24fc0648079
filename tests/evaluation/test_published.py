"""Published figures stand beside runs on the same data alone."""

import pytest

from attn_unet_jax.evaluation.published import list_published


def test_figures_on_pancreas_ct_stand_beside_every_grid_of_it():
  found = list_published("pancreas_ct/iso2mm", ["pancreas"])
  assert found == list_published("pancreas_ct/native", ["liver", "pancreas"])
  assert all("20" in paper and " \u00b1 " in dsc for paper, _, dsc, _ in found)


@pytest.mark.parametrize(
  ("dataset", "classes"),
  [
    ("phantom_ct/demo", ["pancreas"]),
    ("", ["pancreas"]),
    ("pancreas_ct/native", ["liver"]),
    ("my_pancreas_ct/native", ["pancreas"]),
  ],
)
def test_other_data_or_organs_have_none(dataset, classes):
  assert list_published(dataset, classes) == []
