import numpy as np
import pytest

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.inspection.check_report import format_findings
from attn_unet_jax.inspection.collection import inspect_all, mark_duplicates
from attn_unet_jax.inspection.inspected_case import inspect_case, looks_like_labels
from attn_unet_jax.inspection.sources import CaseToInspect, ReadableVolume
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from benchmarks.orientations import on_axes
from tests.conftest import SHARED
from tests.drawn_ct import AFFINE, SHAPE, drawn_ct, drawn_label

PANCREAS = parse_mapping("pancreas=1", None)
NOTHING = Volume(np.zeros(SHAPE, np.int16), AFFINE)


def make_volume(name, volume):
  def read():
    if volume is None:
      raise UserError(f"{name}: cannot be read")
    return volume

  return ReadableVolume(name, read)


def make_case(image, label=NOTHING, case="a", **options):
  label = None if label is NOTHING else make_volume(f"{case}/label", label)
  return CaseToInspect(case, make_volume(f"{case}/image", image), label, **options)


def inspect_volumes(*volumes, mapping=PANCREAS, **options):
  return inspect_case(make_case(*volumes, **options), mapping, DataOptions())


def list_kinds(case):
  return [(one.severity, one.kind) for one in case.findings]


def test_nothing_is_wrong_with_a_sound_case():
  case = inspect_volumes(drawn_ct(), drawn_label())
  assert case.findings == []
  assert case.figures["ml"] == {"pancreas": 49.15}
  assert case.figures["label_values"] == {0: 38400 - 96, 1: 96}
  assert case.figures["under_label"]["pancreas"]["mean_hu"] == pytest.approx(90, abs=3)
  assert (case.figures["shape"], case.figures["orientation"]) == ([40, 40, 24], "RAS")
  assert case.picture is not None


def test_a_spacing_that_no_memory_holds_is_an_error():
  case = inspect_volumes(Volume(drawn_ct().array, np.diag([1e7, 1e7, 1e7, 1.0])))
  (finding,) = (one for one in case.findings if one.kind == "memory")
  assert finding.severity == "error"
  assert finding.text.startswith("a/image: voxels of 2 mm in its field of 4e+08 x 4e+08 x")


@pytest.mark.parametrize("axes", ["LPS", "SRA"])
def test_other_axes_change_nothing(axes):
  straight, turned = (
    inspect_volumes(ct, drawn_label()) for ct in (drawn_ct(), on_axes(drawn_ct(), axes))
  )
  assert turned.findings == []
  assert turned.digests == straight.digests
  np.testing.assert_array_equal(turned.picture, straight.picture)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1, 2)])
def test_a_flipped_label_is_an_error(axes):
  label = Volume(np.flip(drawn_label().array, axes), AFFINE)
  case = inspect_volumes(drawn_ct(), label)
  assert list_kinds(case) == [("error", "flipped")]
  name = "".join("xyz"[axis] for axis in axes)
  assert f"flipped along {name} the label fits better" in case.findings[0].text


def test_a_label_on_air_is_a_warning():
  label = Volume(np.roll(drawn_label().array, -13, axis=0), AFFINE)
  case = inspect_volumes(drawn_ct(), label)
  assert ("warning", "tissue") in list_kinds(case) or ("error", "flipped") in list_kinds(case)


@pytest.mark.parametrize(
  ("mm", "severity", "words"),
  [(0.5, "note", "0.5000 mm apart"), (24.0, "error", "24.000 mm apart")],
)
def test_grids_that_differ_are_named_with_mm(mm, severity, words):
  affine = AFFINE.copy()
  affine[0, 3] += mm
  case = inspect_volumes(drawn_ct(), Volume(drawn_label().array, affine))
  assert list_kinds(case) == [(severity, "grids")]
  assert words in case.findings[0].text


def test_each_side_is_looked_at_though_the_other_is_broken():
  case = inspect_volumes(None, Volume(drawn_label().array * 255, AFFINE))
  assert list_kinds(case) == [("error", "unreadable"), ("error", "label_values")]
  case = inspect_volumes(Volume(drawn_ct().array + 1024, AFFINE), None)
  assert list_kinds(case) == [("error", "unreadable"), ("error", "hounsfield")]
  case = inspect_volumes(
    Volume(drawn_ct().array + 1024, AFFINE), Volume(drawn_label().array[1:], AFFINE)
  )
  assert [kind for _, kind in list_kinds(case)] == ["hounsfield", "grids"]
  assert case.picture is not None
  case = inspect_volumes(None, None)
  assert (case.picture, case.figures) == (None, {})


def test_swapped_folders_are_one_line_a_case():
  case = inspect_volumes(drawn_label(), drawn_ct())
  assert list_kinds(case) == [("error", "swapped")]
  assert "a/image: holds labels, and a/label an image" in case.findings[0].text


def test_a_lone_file_may_be_a_label_map():
  assert looks_like_labels(drawn_label().array)
  assert not looks_like_labels(drawn_ct().array)
  assert not looks_like_labels(np.clip(drawn_ct().array, 0, 255))
  case = inspect_volumes(Volume(drawn_label().array * 2, AFFINE), may_be_labels=True)
  assert list_kinds(case) == [("error", "label_values")]
  assert case.figures["taken_for"] == "label map"
  assert inspect_volumes(drawn_ct(), may_be_labels=True).findings == []
  assert list_kinds(inspect_volumes(drawn_label())) == [
    ("error", "hounsfield")
  ]  # declared an image: 0 to 1


def test_the_same_scan_under_two_names_is_an_error_in_any_order_of_axes():
  label = Volume(drawn_label().array, AFFINE)
  other = Volume(np.roll(label.array, 1, axis=0), AFFINE)
  subjects = [
    make_case(drawn_ct(), label, "a"),
    make_case(drawn_ct(seed=1), other, "b"),
    make_case(on_axes(drawn_ct(), "LPS"), label, "c"),
    make_case(drawn_ct(seed=2), label, "d"),
    make_case(drawn_ct(seed=3), NOTHING, "e"),
    make_case(None, None, "f"),
    make_case(None, None, "g"),
  ]
  cases = list(inspect_all(subjects, PANCREAS, DataOptions(), threads=3))
  assert [case.id for case in cases] == list("abcdefg")
  mark_duplicates(cases)
  named = {case.id: [one for one in case.findings if "duplicate" in one.kind] for case in cases}
  assert [case for case, some in named.items() if some] == ["c", "d"]
  assert [one.severity for one in named["c"]] == ["error"]
  assert named["c"][0].text.startswith("c/image: the same voxels as a/image")
  assert named["d"][0].text.startswith("d/label: the same label as a/label, of another image")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
@pytest.mark.parametrize(
  ("image", "label", "text"),
  [
    ("ct_nifti_3mm/ct.nii.gz", "ct_nifti_3mm/labels_104.nii.gz", "pancreas=10,background=*"),
    ("ct_spleen/sub-spleen2_ct.nii.gz", "ct_spleen/sub-spleen2_ct_seg-manual.nii.gz", "spleen=1"),
  ],
)
def test_real_labels_lie_as_they_should_and_flips_are_seen(image, label, text):
  ct = to_canonical(read_nifti(SHARED / image))
  mask = to_canonical(read_label(SHARED / label))
  for axes in [(), (0,), (1,), (2,), (0, 1)]:
    flipped = Volume(np.flip(mask.array, axes), mask.affine)
    case = inspect_volumes(ct, flipped, mapping=parse_mapping(text, None))
    assert case.has_kind("flipped") == bool(axes), axes


def test_what_the_user_accepts_is_a_note_and_hides_no_other_error():
  scan = Volume(drawn_ct().array + 1024, AFFINE)
  (finding,) = inspect_case(make_case(scan), PANCREAS, DataOptions(accept="hounsfield")).findings
  assert (finding.severity, finding.kind) == ("note", "hounsfield")
  assert finding.text.startswith("accepted: a/image: values from ")
  assert list_kinds(
    inspect_case(make_case(scan), PANCREAS, DataOptions(accept="geometry,rescale"))
  ) == [("error", "hounsfield")]


def test_small_fields_are_one_line():
  notes = [Finding("note", "patch", f"{name}: small") for name in "abc"]
  assert list(format_findings(notes)) == ["note     a: small (and 2 more)"]
  assert list(format_findings(notes[:1])) == ["note     a: small"]
