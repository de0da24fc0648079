"""The page of a comparison: every case by two runs, and pictures of those that differ most."""

import csv
import json
import shutil

import numpy as np
import pytest

from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.compare_runs import compare_runs
from tests.configs import with_keys
from tests.drawing.test_page import EVIL, Page, decode_volume
from tests.drawn_ct import drawn_label
from tests.workflows.test_report_run import run  # noqa: F401 (a fixture)


@pytest.fixture
def runs(run):  # noqa: F811
  """A run, and another whose case `a` is missed in one slice and whose `d` is found."""
  workdir, data = run
  other = workdir.with_name("other")
  shutil.copytree(workdir, other)
  label = drawn_label()
  damaged = label.array.copy()
  damaged[:, :, 10] = 0
  write_nifti(other / "predictions" / "a.nii.gz", Volume(damaged, label.affine))
  with (other / "evaluation" / "cases.csv").open("w") as file:
    writer = csv.writer(file)
    writer.writerow(["case", "class", "dsc"])
    writer.writerows(
      [name, "pancreas", value] for name, value in zip("abcd", (0.25, 0.75, 0.5, 1), strict=True)
    )
  return workdir, other, data


def make_page(runs, output, title="Two runs"):
  compare_runs([*map(str, runs)], "test", ["dsc"], output, title, "")
  text = output.read_text()
  (data,) = [line for line in text.splitlines() if 'id="data"' in line]
  return text, json.loads(data.partition(">")[2].removesuffix("</script>"))


def test_a_page_shows_each_case_by_both_runs_and_what_differs_most(runs, tmp_path, capsys):
  first, other, _ = runs
  text, data = make_page((first, other), tmp_path / "two.html", EVIL)
  page = Page(text)
  assert EVIL in page.texts["h1"]
  assert not [tag for tag, _ in page.found if tag == "b"]
  (scatter,) = data["scatters"]
  assert scatter["cases"][0] == ["a", 1.0, 0.25]
  assert scatter["about"].startswith("Mean difference, other less run: -0.125 over 4 cases; p ")
  ids = [one["id"] for one in data["thumbs"]]
  assert ids[:3] == ["a, run", "a, other", "d, run"]
  assert len(ids) == len(set(ids)) == 8
  assert (data["places"]["a"], data["places"]["d"]) == (0, 2)
  # The slice is that in which the masks differ, and the same for both.
  masks = []
  for one in data["thumbs"][:2]:
    assert one["shape"][2] == 1
    for kind in ("truth", "prediction"):
      (line,) = [line for line in text.splitlines() if f'id="{one["volumes"][kind]}"' in line]
      body = line.partition(">")[2].removesuffix("</script>")
      masks.append(decode_volume(body, tuple(one["shape"])))
  truth, found, again, missed = masks
  np.testing.assert_array_equal(truth, again)
  assert found.any()
  assert not missed.any()
  assert capsys.readouterr().out.endswith(f"table: {tmp_path / 'two.html'}\n")


def test_settings_that_differ_stand_apart_from_the_scores(runs, tmp_path):
  first, other, _ = runs
  config = load_config(other / "config.json")
  (other / "config.json").write_text(to_json(with_keys(config, {"seed": 12345})))
  text, _ = make_page((first, other), tmp_path / "two.html")
  scores, differences = text.split('id="differences"')
  assert "<td>12345</td>" in differences
  assert "12345" not in scores
  # Folders of one name are called by their paths.
  (tmp_path / "b").mkdir()
  other.rename(tmp_path / "b" / "run")
  _, data = make_page((first, tmp_path / "b" / "run"), tmp_path / "two.html")
  assert data["thumbs"][0]["id"] == f"a, {first}"


def test_a_page_says_why_there_are_no_pictures(runs, tmp_path):
  first, other, data = runs
  (other / "predictions" / "d.nii.gz").unlink()
  assert "There is no picture of d: " in make_page((first, other), tmp_path / "c.html")[0]
  text, found = make_page((first, other / "evaluation"), tmp_path / "b.html")
  assert "a folder of scores alone does not name its data" in text
  assert found["thumbs"] == []
  (data / "imagesTr").rename(data / "elsewhere")
  assert "since the data is not there" in make_page((first, other), tmp_path / "d.html")[0]


def test_masks_of_other_class_orders_are_compared_by_the_names_of_their_classes(runs, tmp_path):
  """Both find the same two organs, and the second counts them the other way round."""
  orders, found = ("pancreas=1,liver=2", "liver=2,pancreas=1"), []
  for number, (workdir, labels) in enumerate(zip(runs[:2], orders, strict=True)):
    path = workdir / "config.json"
    config = with_keys(load_config(path), {"data.labels": labels})
    path.write_text(to_json(config))
    label = drawn_label()
    organs = np.where(label.array > 0, 1 + number, 0).astype(np.uint8)
    organs[:3, :3, 10] = 2 - number
    write_nifti(workdir / "predictions" / "a.nii.gz", Volume(organs, label.affine))
  text, data = make_page(runs[:2], tmp_path / "two.html")
  for one in data["thumbs"][:2]:
    (line,) = [line for line in text.splitlines() if f'id="{one["volumes"]["prediction"]}"' in line]
    body = line.partition(">")[2].removesuffix("</script>")
    found.append(decode_volume(body, tuple(one["shape"])))
  np.testing.assert_array_equal(*found)
  assert set(np.unique(found[0])) >= {0, 1}


def test_the_truth_of_runs_that_learnt_a_boundary_is_the_boundary(runs, tmp_path):
  changes = {"data.target": "boundary", "inference.largest_component": False}
  for workdir in runs[:2]:
    path = workdir / "config.json"
    path.write_text(to_json(with_keys(load_config(path), changes)))
  text, data = make_page(runs[:2], tmp_path / "two.html")
  one = data["thumbs"][0]
  (line,) = [line for line in text.splitlines() if f'id="{one["volumes"]["truth"]}"' in line]
  truth = decode_volume(line.partition(">")[2].removesuffix("</script>"), tuple(one["shape"]))
  x, y = np.argwhere(truth[..., 0]).mean(axis=0).round().astype(int)
  assert truth.any()
  assert not truth[x, y]


def test_a_class_that_the_data_does_not_label_keeps_its_place_in_the_masks(runs, tmp_path):
  for workdir in runs[:2]:
    path = workdir / "config.json"
    path.write_text(to_json(with_keys(load_config(path), {"data.labels": "liver=none,pancreas=1"})))
  _, data = make_page(runs[:2], tmp_path / "two.html")
  assert [(one["name"], one["known"]) for one in data["classes"]] == [
    ("liver", False),
    ("pancreas", True),
  ]
