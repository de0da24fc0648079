"""The page of a run: what it embeds can be read back, and no text in it becomes HTML."""

import base64
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from attn_unet_jax.drawing.page.answer import AnswerPage, write_answer_page
from attn_unet_jax.drawing.page.coding import encode_volume
from attn_unet_jax.drawing.page.document import RunPage, describe_style, write_document
from attn_unet_jax.drawing.page.overlays import embed_maps
from attn_unet_jax.drawing.page.spreads import collect_spreads, find_worst
from attn_unet_jax.drawing.page.summary import find_meaning
from attn_unet_jax.drawing.page.volumes import (
  CODED_HU,
  choose_steps,
  code_hu,
  embed_case,
)
from attn_unet_jax.runs.metrics_csv import COLUMNS
from attn_unet_jax.volumes import Grid, Volume
from attn_unet_jax.volumes.places import PLACES
from benchmarks.orientations import on_axes
from tests.drawn_ct import ORGAN, drawn_ct, drawn_label

KINDS = ("truth", "prediction")
EVIL = "<script>alert('x')</script>&\"'--><b>"


class Page(HTMLParser):
  """The elements of a page, and the text in each kind of them."""

  def __init__(self, text):
    super().__init__()
    self.found, self.ids, self.texts, self._open = [], [], {}, []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    self.ids += [value for name, value in attrs if name == "id"]
    if tag not in ("meta", "link"):
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    tag = self._open[-1] if self._open else ""
    self.texts[tag] = self.texts.get(tag, "") + data


def decode_volume(text, shape):
  """Decodes what `encode_volume` wrote, as the script of the page does."""
  changes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
  return np.cumsum(changes.reshape(shape[::-1]), axis=-1, dtype=np.uint8).T


def embed(case_id="a", role="worst", **options):
  label = drawn_label().array
  return embed_case(case_id, role, "DSC 0.5", drawn_ct(), label, np.roll(label, 1, 0), **options)


def make_page(**changes):
  rows = [
    {"case": case, "class": "pancreas", "dsc": dsc, "hd_mm": "3.5", "volume_ml": "70"}
    for case, dsc in ((EVIL, "0.5"), ("b", "0.75"), ("c", "nan"))
  ]
  metrics = {**dict.fromkeys(COLUMNS, "0.5"), "epoch": "1", "validation_dsc": ""}
  spread = {"mean": 0.625, "sd": 0.25, "n": 2, "undefined": 1}
  page = {
    "title": EVIL,
    "lead": EVIL,
    "facts": [(EVIL, EVIL)],
    "notes": [EVIL],
    "metrics": [metrics],
    "classes": [EVIL],
    "summary": {"classes": {EVIL: {"dsc": spread}}},
    "scores": rows,
    "shown": [embed(EVIL)],
    "thumbnails": [embed("b", "", one_slice=True)],
    "record": [(EVIL, EVIL)],
  }
  return write_document(RunPage(**{**page, **changes}))


def make_answer(**changes):
  page = {
    "title": EVIL,
    "lead": EVIL,
    "classes": [EVIL, *"bcdefg"],
    "millilitres": [1.234] * 7,
    "expected_dsc": [0.5] * 7,
    "warnings": [EVIL],
    "case": embed_case(EVIL, "", "", drawn_ct(), None, drawn_label().array),
  }
  return write_answer_page(AnswerPage(**{**page, **changes}))


def test_the_page_of_an_answer_has_its_texts_as_text_and_a_colour_for_each_class():
  page = Page(make_answer())
  assert page.texts["strong"] == EVIL
  assert "1.23" in page.texts["td"]
  assert "0.50" in page.texts["td"]
  (data,) = [one for one in page.texts["script"].splitlines() if one.startswith('{"panels"')]
  data = json.loads(data[: data.rindex("}") + 1])
  assert data["kinds"] == ["prediction"]
  assert len({one["prediction"] for one in data["classes"]}) == 7
  assert {*data["shown"][0]["volumes"]} == {"image", "prediction"}
  assert "expected DSC" not in make_answer(expected_dsc=[])


@pytest.mark.parametrize("count", [1, 3, 4, 7, 16])
def test_no_two_of_sixteen_classes_look_alike(count):
  looks = [
    (one[kind], kind)
    for one in describe_style("abcdefghijklmnop"[:count])["classes"]
    for kind in KINDS
  ]
  assert len(set(looks)) == 2 * count


def test_scores_are_explained_where_they_stand():
  spread = {"mean": 0.625, "sd": 0.25, "n": 2, "undefined": 1}
  page = make_page(summary={"classes": {"a": {"recall": spread}}})
  assert "how much of the truth was found" in page
  assert "twice what both share" not in page
  assert "twice what both share" in make_page()


@pytest.mark.parametrize("metric", ["nsd_2mm", "hd95_mm", "volume_error_abs_ml", "box_recall"])
def test_a_score_has_the_meaning_of_the_longest_name_that_it_begins_with(metric):
  said = {
    "nsd_2mm": "share of both surfaces",
    "hd95_mm": "the distance within which 95 %",
    "volume_error_abs_ml": "without its sign",
    "box_recall": "in the box",
  }
  assert said[metric] in find_meaning(metric)
  assert find_meaning("own_score") == ""


def test_a_class_without_a_truth_is_known_to_the_script():
  classes = describe_style(["a", "b"], ["b"])["classes"]
  assert [one["known"] for one in classes] == [True, False]


def test_published_figures_stand_below_the_scores():
  assert "Published" not in make_page()
  page = Page(make_page(published=[(EVIL, "a network", "0.5 \u00b1 0.1", "12")]))
  assert EVIL in page.texts["th"]
  assert "0.5 \u00b1 0.1" in page.texts["td"]


def test_what_is_embedded_is_read_back():
  array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
  np.testing.assert_array_equal(decode_volume(encode_volume(array), (5, 4, 3)), array)


def test_codes_keep_soft_tissue_to_a_few_hu_and_order_everywhere():
  hu = np.arange(-3000, 3000)
  codes = code_hu(hu)
  assert (np.diff(codes.astype(int)) >= 0).all()
  back = np.interp(codes, *zip(*[(code, value) for value, code in CODED_HU], strict=True))
  soft = (hu >= -200) & (hu <= 300)
  assert np.abs(back - hu)[soft].max() <= 1.25
  assert (codes[0], codes[-1]) == (0, 255)


@pytest.mark.parametrize(
  ("size", "spacing", "steps"),
  [
    ((10, 10, 10), (1, 1, 1), (1, 1, 1)),
    ((20, 10, 10), (0.5, 1, 1), (2, 1, 1)),
    ((40, 40, 1), (1, 1, 5), (2, 1, 1)),
    ((2000, 1, 1), (9, 1, 1), (2, 1, 1)),
  ],
)
def test_the_finest_axis_gives_voxels_away_first(size, spacing, steps):
  assert choose_steps(size, spacing, 1000) == steps


def test_a_case_is_embedded_around_its_organ_whatever_its_axes():
  case = embed()
  truth = decode_volume(case.volumes["truth"], case.shape)
  predicted = decode_volume(case.volumes["prediction"], case.shape)
  assert (truth.sum(), predicted.sum()) == (96, 96)
  assert truth.shape == (6 + 1 + 2 * 5, 4 + 2 * 5, 4 + 2 * 5)  # 40 mm are five voxels
  image = decode_volume(case.volumes["image"], case.shape)
  inside = tuple(
    slice(part.start - 5 * (axis < 3), part.stop + 5) for axis, part in enumerate(ORGAN)
  )
  expected = drawn_ct().array[inside[0].start : inside[0].stop + 1, inside[1], inside[2]]
  np.testing.assert_array_equal(image, code_hu(expected))
  assert truth[case.centre] == 1
  label, moved = drawn_label(), np.roll(drawn_label().array, 1, 0)
  turned = on_axes(drawn_ct(), "LSP")
  again = embed_case(
    "a",
    "worst",
    "DSC 0.5",
    turned,
    on_axes(label, "LSP").array,
    on_axes(Volume(moved, label.affine), "LSP").array,
  )
  assert (again.shape, again.centre, again.volumes) == (case.shape, case.centre, case.volumes)


def test_unlabelled_voxels_are_no_class_and_a_slice_is_one_slice():
  label = drawn_label().array.copy()
  label[0, 0, 0] = 255
  case = embed_case("a", "", "", drawn_ct(), label, drawn_label().array, 400, one_slice=True)
  assert case.shape[2] == 1
  assert np.prod(case.shape) <= 400
  assert set(np.unique(decode_volume(case.volumes["truth"], case.shape))) == {0, 1}


def test_a_map_on_another_grid_lies_on_the_organ_that_it_is_high_in():
  """A map of 1 in the organ and 0 elsewhere, on a finer grid of another origin."""
  organ = drawn_label()
  fine = np.kron(organ.array, np.ones((2, 2, 2), np.float32))
  affine = organ.affine.copy()
  affine[:3, :3] /= 2
  affine[:3, 3] -= 2  # the middle of the first half voxel
  maps = {"level4/0": Volume(0.25 + fine / 2, affine)}
  shape, found = embed_maps(organ.grid, maps, {"level4/0": "said"})
  one = found["level4/0"]
  assert shape == organ.shape  # of 8 mm voxels every one is kept
  assert (one.low, one.high) == (0.25, 0.75)
  codes = decode_volume(one.text, shape)
  np.testing.assert_array_equal(codes == 255, organ.array > 0)
  assert one.about == "said"


def test_a_map_that_says_one_thing_everywhere_is_no_error():
  flat = Volume(np.full((4, 4, 4), 0.5, np.float32), np.eye(4) * [5, 5, 5, 1])
  shape, found = embed_maps(Grid((8, 8, 1), np.eye(4)), {"a": flat})
  assert shape == (2, 2, 1)
  assert (found["a"].low, found["a"].high) == (0.5, 0.5)


def test_the_page_has_the_maps_of_a_case():
  organ = drawn_label()
  maps = {EVIL: Volume(organ.array.astype(np.float32), organ.affine)}
  case = embed(maps=maps, about_maps={EVIL: EVIL})
  text = make_page(shown=[case])
  (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
  (one,) = json.loads(data)["shown"]
  about = one["maps"][EVIL]
  (embedded,) = re.findall(rf'<script type="text/plain" id="{about["place"]}">(.*?)</script>', text)
  codes = decode_volume(embedded, tuple(one["map_shape"]))
  assert about["about"] == EVIL
  assert codes.max() == 255


def test_no_text_of_a_run_becomes_html():
  text = make_page()
  page = Page(text)
  assert not [tag for tag, _ in page.found if tag == "b"]
  scripts = [attributes for tag, attributes in page.found if tag == "script"]
  assert [one.get("type") for one in scripts[-3:]] == [None, None, None]
  assert {one.get("type") for one in scripts[:-3]} == {"application/json", "text/plain"}
  assert "alert(" not in re.sub(r"<script type=.*?</script>", "", text).replace(
    "&lt;script&gt;alert(", ""
  )
  for tag in ("h1", "title", "dt", "dd", "strong", "pre", "summary"):
    assert EVIL in page.texts[tag]
  (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
  data = json.loads(data)
  assert data["shown"][0]["id"] == data["classes"][0]["name"] == EVIL
  assert data["spreads"][0]["worst"] == EVIL


def test_a_page_loads_nothing_and_its_links_lead_somewhere():
  page = Page(make_page())
  wanted = [
    (tag, name, value)
    for tag, attributes in page.found
    for name, value in attributes.items()
    if name in ("href", "src", "action", "data", "srcset")
  ]
  assert [one for one in wanted if not one[2].startswith(("#", "data:,"))] == []
  policy = {attributes.get("content") for tag, attributes in page.found if tag == "meta"}
  assert any(value and value.startswith("default-src 'none'") for value in policy)
  assert len(page.ids) == len(set(page.ids))
  # The script makes the places of the two cases with pictures.
  made = {"case-0", "case-1"}
  assert {value[1:] for _, name, value in wanted if value.startswith("#")} <= {*page.ids, *made}
  assert "case-2" in page.ids


def test_each_volume_is_where_the_script_looks_for_it():
  text = make_page()
  (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
  for one in (*json.loads(data)["shown"], *json.loads(data)["thumbs"]):
    for name, place in one["volumes"].items():
      (embedded,) = re.findall(rf'<script type="text/plain" id="{place}">(.*?)</script>', text)
      assert decode_volume(embedded, tuple(one["shape"])).size == np.prod(one["shape"]), name


def test_scores_stand_with_their_number_and_an_undefined_one_is_no_dot():
  text = make_page()
  assert "0.625 \u00b1 0.250 (n 2 of 3)" in text
  (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
  dsc, *_ = json.loads(data)["spreads"]
  assert [value for _, value in dsc["cases"]] == [0.5, 0.75]
  assert dsc["worstValue"] == 0.5


def test_the_table_begins_with_the_lowest_dsc_wherever_one_is_undefined():
  scores = [
    {"case": name, "class": "pancreas", "dsc": dsc}
    for name, dsc in (("p", "0.9"), ("q", "nan"), ("r", "0.1"), ("s", "0.5"))
  ]
  text = make_page(scores=scores, shown=[], thumbnails=[])
  table = text[text.index("the lowest DSC first") :]
  assert sorted("pqrs", key=lambda name: table.index(f">{name}</")) == ["r", "s", "p", "q"]


def test_a_run_without_scores_and_epochs_has_a_page():
  page = Page(make_page(metrics=[], summary={}, scores=[], shown=[], thumbnails=[]))
  assert "There are no scores yet." in page.texts["p"]
  assert "There are no pictures." in page.texts["p"]


@pytest.mark.parametrize(
  ("metric", "worst"),
  [
    ("dsc", "a"),
    ("nsd_2mm", "a"),
    ("hd95_mm", "b"),
    ("volume_error_abs_ml", "b"),
    ("volume_ml", ""),
  ],
)
def test_which_end_is_the_worse_depends_on_the_metric(metric, worst):
  assert find_worst(metric, {"a": 0.1, "b": 0.2}) == worst


def test_of_many_cases_and_scores_a_part_is_drawn_and_the_page_says_so():
  classes, metrics = [f"c{n}" for n in range(10)], ["dsc", *(f"m{n}" for n in range(9))]
  scores = [
    {"case": f"case{case}", "class": name, **dict.fromkeys(metrics, str(case / 1000))}
    for case in range(1000)
    for name in classes
  ]
  drawn, left_out = collect_spreads(scores)
  assert (len(drawn), left_out) == (48, 52)
  # Every class has its first metrics.
  assert [spread["title"] for spread in drawn if ": dsc" in spread["title"]] == [
    f"{name}: dsc, 300 of 1000 cases" for name in classes
  ]
  first = drawn[0]
  values = [value for _, value in first["cases"]]
  assert (values[0], values[-1], len(values)) == (0.0, 0.999, 300)
  assert max(np.diff(values)) < 0.005
  assert (first["median"], first["worst"]) == (pytest.approx(0.4995), "case0")
  gates = {f"case{n}": {"level2/0": dict.fromkeys(PLACES, 0.5)} for n in range(150)}
  means = {"level2/0": dict.fromkeys(PLACES, (0.5, 0.0))}
  text = make_page(scores=scores, shown=[], thumbnails=[], gates=means, gate_cases=gates)
  assert "Not drawn: 52 of 100 diagrams." in text
  assert "500 of 10000 lines of cases.csv, the lowest DSC first" in text
  assert "The first 100 of 150 cases of attention.csv" in text
  assert text.count("<tr>") < 700
  (data,) = re.findall(r'id="data">(.*?)</script>', text)
  # No link leads to a case that is nowhere on the page.
  assert len(json.loads(data)["places"]) == len(re.findall(r'id="case-', text)) == 50
