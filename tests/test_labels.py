import re

import numpy as np
import pytest

from attn_unet_jax.labels import (
  UNLABELLED,
  class_names,
  find_labelled_classes,
  is_foreground,
  parse_mapping,
  rest_value,
)
from attn_unet_jax.runtime.errors import UserError


def test_merges_values_and_orders_classes():
  mapping = parse_mapping("spleen=1,pancreas=2+3", None)
  volume = np.array([[[0, 1], [2, 3]]])
  assert mapping.classes == ("spleen", "pancreas")
  assert mapping.class_indices == {"spleen": 1, "pancreas": 2}
  np.testing.assert_array_equal(mapping.apply(volume, "x"), [[[0, 1], [2, 2]]])
  assert str(mapping) == "spleen=1,pancreas=2+3"


def test_a_bare_name_is_one_without_names_and_itself_with_names():
  assert parse_mapping("pancreas", None).values == (frozenset({1}),)
  assert parse_mapping("pancreas", {"liver": 5, "pancreas": 10}).values == (frozenset({10}),)


def test_a_name_with_spaces_in_the_data_is_found_with_and_without_them():
  names = {"background": 0, "left kidney": 3, "1 2": 4}
  for text in ("left kidney", "leftkidney", "leftkidney=left kidney"):
    mapping = parse_mapping(text, names)
    assert mapping.classes == class_names(text) == ("leftkidney",)
    assert mapping.values == (frozenset({3}),)
  assert parse_mapping("a=12", names).values == (frozenset({12}),)  # a number stays one
  assert parse_mapping("leftkidney", {"left kidney": 3, "leftkidney": 3}).values == ({3},)


def test_what_the_data_names_is_background():
  mapping = parse_mapping("pancreas", {"liver": 5, "pancreas": 10})
  np.testing.assert_array_equal(mapping.apply(np.array([[[5, 10, 0]]]), "x"), [[[0, 1, 0]]])


def test_background_star_takes_everything_else():
  mapping = parse_mapping("pancreas=10,background=*", None)
  np.testing.assert_array_equal(mapping.apply(np.array([[[255, 10, -3]]]), "x"), [[[0, 1, 0]]])


def test_any_other_value_may_be_a_class_beside_background_star():
  values = {*range(-999, 1000), *(sign * 2**n for n in range(31) for sign in (-1, 1))} - {0}
  mapping = parse_mapping(f"a={'+'.join(map(str, values))},background=*", None)
  assert mapping.values == (frozenset(values),)
  assert mapping.background == {0}


def test_unlabelled_values_are_no_class():
  mapping = parse_mapping("pancreas=1,unlabelled=3+7", None)
  assert mapping.class_indices == {"pancreas": 1}
  np.testing.assert_array_equal(
    mapping.apply(np.array([[[0, 1, 3, 7]]]), "x"), [[[0, 1, 255, 255]]]
  )
  assert parse_mapping(str(mapping), None) == mapping


def test_zero_may_be_what_is_unlabelled():
  mapping = parse_mapping("pancreas=2,background=1,unlabelled=0", None)
  np.testing.assert_array_equal(mapping.apply(np.array([[[0, 1, 2]]]), "x"), [[[255, 0, 1]]])
  assert parse_mapping(str(mapping), None) == mapping


def test_values_outside_are_named_with_the_way_out():
  with pytest.raises(
    UserError, match=r"file: label values \[255\].*'pancreas=1,background=255' takes it for backg"
  ):
    parse_mapping("pancreas=1", None).apply(np.array([[[0, 1, 255]]]), "file")
  with pytest.raises(UserError, match=r"label values \[2, 3, 4, 5, 6, 7, 8, 9\] are outside"):
    parse_mapping("pancreas=1", None).apply(
      np.arange(1000).reshape(10, 10, 10), "file"
    )  # no more of them


@pytest.mark.parametrize(
  ("text", "names", "present", "hint"),
  [
    ("pancreas=1", None, [0, 255], "means: --config.data.labels='pancreas=255' takes it for pan"),
    ("pancreas", None, [0, 2, 7], "'pancreas=2+7' takes them for pancreas, with background=VALUE"),
    ("pancreas=1+2", None, [0, 1, 3], "'pancreas=1+2+3' takes it for pancreas, 'pancreas=1+2,back"),
    ("pancreas=1", None, range(20), "labels='pancreas=1,background=*' takes them for background"),
    ("pancreas=1", None, [0, *range(2, 20)], "labels='pancreas=VALUE', with a value for each"),
    ("a=1,b=2", None, [0, 5, 6], "'a=VALUE,b=VALUE', with a value for each VALUE, with background"),
    ("a=1,b=2", None, [0, 1, 5], "labels='a=1,b=VALUE', with a value for each VALUE"),
    ("a=1,b=2", None, [0, 1, 2, 5], "labels='a=1,b=2,background=5' takes it for background"),
    ("a=1,background=3", None, [0, 1, 3, 5], "'a=1+5,background=3' takes it for a, 'a=1,back"),
    ("background=2,a=1,unlabelled=0", None, [0, 1, 7], "'a=1+7,unlabelled=0,background=2' takes"),
    ("a", {"a": 2, "b": 6}, [0, 2, 7], "'a=2+7' takes it for a, 'a=2,background=7' takes it"),
    ("pancreas=1", None, range(-500, 500), "1000 values are those of an image, not of a label map"),
  ],
)  # fmt: skip
def test_a_hint_leaves_no_file_without_a_class(text, names, present, hint):
  """To take all values of a file for background trains to the end on labels of nothing."""
  mapping = parse_mapping(text, names)
  said = mapping.suggest_mappings(list(present))
  assert hint in said
  for suggested in re.findall(r"'([^']*)'", said):
    if "VALUE" not in suggested:
      followed = parse_mapping(suggested, names).apply(np.array([[list(present)]]), "file")
      assert ((followed > 0) & (followed != UNLABELLED)).any()


def test_what_nnunet_ignores_is_unlabelled_unless_it_is_mentioned():
  names = {"background": 0, "pancreas": 1, "ignore": 2}
  mapping = parse_mapping("pancreas", names)
  assert (mapping.unlabelled, mapping.background) == ({2}, {0})
  assert mapping.describe() == "pancreas=1,unlabelled=2"
  np.testing.assert_array_equal(mapping.apply(np.array([[[0, 1, 2]]]), "x"), [[[0, 1, 255]]])
  assert parse_mapping("pancreas,unlabelled=7", names).unlabelled == {2, 7}
  assert parse_mapping("pancreas,background=*", names).unlabelled == {2}
  assert parse_mapping("pancreas,background=ignore", names).unlabelled == set()
  assert parse_mapping("pancreas=1+2", names).values == (frozenset({1, 2}),)
  assert parse_mapping("ignore", names).values == (frozenset({2}),)
  with pytest.raises(UserError, match="0 is unlabelled; say background=VALUE"):
    parse_mapping("pancreas", {"ignore": 0, "pancreas": 1})


@pytest.mark.parametrize(
  ("text", "names", "complaint"),
  [
    ("", None, "name at least one class"),
    ("pancreas=x", None, "'x' must be a number"),
    ("pancreas=x", {"liver": 1}, "'x' must be one of"),
    ("b=a a", {"a a": 1, "aa": 2}, "'aa' may be 'a a' or 'aa'.*give the value, 1 or 2"),
    ("a=1,b=1", None, "value 1 of 'b' has a meaning already"),
    ("a=0", None, "value 0 of 'a' has a meaning already"),
    ("a=1,a=2", None, "given twice"),
    ("a=--5", None, "must be a number"),
    ("a=*", None, r"'\*' must be a number"),
    ("pancreas=*", None, r"'\*' must be a number"),
    ("a=1,background=2+", None, "'' must be a number"),
    ("a=3,background=3", None, "value 3 is background and something else"),
    ("a=1,unlabelled=1", None, "value 1 of 'unlabelled' has a meaning already"),
    ("a=1,background=2,unlabelled=2", None, "background and something else"),
    ("a=1,unlabelled=0", None, "0 is unlabelled; say background=VALUE"),
  ],
)
def test_bad_mappings_are_refused(text, names, complaint):
  with pytest.raises(UserError, match=complaint):
    parse_mapping(text, names)


def test_what_becomes_background_is_said():
  assert parse_mapping("pancreas", {"background": 0, "pancreas": 1, "cancer": 2}).describe() == (
    "pancreas=1, values [2] background"
  )
  assert (
    parse_mapping("pancreas=1,background=*", None)
    .describe()
    .endswith("all other values background")
  )
  assert parse_mapping("pancreas=1", None).describe() == "pancreas=1"


@pytest.mark.parametrize("text", ["", "background=*", "a=1,a=2"])
def test_class_names_are_checked(text):
  with pytest.raises(UserError, match="name one class or more"):
    class_names(text)


def test_class_names_leave_the_background_out():
  assert class_names("spleen=1, pancreas=2,background=*") == ("spleen", "pancreas")


@pytest.mark.parametrize("names", [None, {"background": 0, "pancreas": 1}])
def test_a_class_may_be_none_of_the_values(names):
  text = "liver=none,pancreas=1"
  mapping = parse_mapping(text, names)
  assert mapping.classes == class_names(text) == ("liver", "pancreas")
  assert mapping.labelled_indices == {"pancreas": 2}
  assert find_labelled_classes(text) == (False, True)
  assert mapping.apply(np.array([0, 1]), "x").tolist() == [0, 2]
  assert str(mapping) == text
  suggested = "--config.data.labels='liver=none,pancreas=VALUE', with a value for each VALUE"
  with pytest.raises(UserError, match=re.escape(suggested)):
    mapping.apply(np.array([0, 3]), "x")


def test_not_all_classes_may_be_none():
  with pytest.raises(UserError, match="name at least one class"):
    parse_mapping("liver=none,pancreas=none", None)


def test_foreground_is_what_is_known_to_be_of_a_class():
  values = np.array([0, 1, 200, rest_value(0), rest_value(1), UNLABELLED])
  assert is_foreground(values).tolist() == [False, True, True, False, False, False]
