"""Keys that nothing reads while another one is off."""

import dataclasses

import pytest

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import FIXED_SECTIONS, RunConfig
from attn_unet_jax.config.stored import find_differences, load_config, to_json
from attn_unet_jax.config.switches import check_switches, find_off_switch
from attn_unet_jax.runtime.errors import UserError

PAINTED = {"painting.lesions": 0.5}


@pytest.mark.parametrize(
  ("changes", "on", "complaint"),
  [
    (
      PAINTED,
      {"painting.enabled": True},
      r"^config\.painting\.lesions=0\.5: only painting\.enabled=True reads it; add "
      r"--config\.painting\.enabled=true, or leave it out$",
    ),
    ({"data.also_share": 0.9}, {"data.also": "maps"}, r"data\.also_share=0\.9: only a second data"),
    ({"data.also_labels": "a=1"}, {"data.also": "maps"}, r"add --config\.data\.also=DATA"),
    ({"stages.patch": (8, 8, 8)}, {"stages.count": 2}, r"patch=\(8, 8, 8\): only stages\.count=2 "),
  ],
)
def test_what_nothing_reads_is_refused(changes, on, complaint):
  check_switches(replace_keys(RunConfig(), changes | on))
  config = replace_keys(RunConfig(), changes)
  with pytest.raises(UserError, match=complaint):
    check_switches(config)
  (key,) = changes
  check_switches(config, said={"seed"})
  with pytest.raises(UserError, match=complaint):
    check_switches(config, said={key})


def test_every_key_of_painting_and_of_stages_has_its_switch():
  values = {"painting.enabled": False, "stages.count": 1, "data.also": ""}
  for section, switch in (("painting", "enabled"), ("stages", "count")):
    for field in dataclasses.fields(FIXED_SECTIONS[section]):
      off = find_off_switch(f"{section}.{field.name}", values)
      assert (off is None) == (field.name == switch)


def test_a_draft_that_says_what_nothing_reads_is_refused():
  draft = load_experiment("pancreas:phantom")
  apply_overrides(draft, {"painting.lesions": "0.5"})
  with pytest.raises(UserError, match=r"painting\.lesions=0\.5: only painting\.enabled=True reads"):
    resolve_draft(draft)


def test_what_an_experiment_says_goes_with_its_switch():
  draft = load_experiment("pancreas:real")
  (said,) = apply_overrides(draft, {"painting.enabled": "false", "data.also": ""})
  assert "painting.fat=(0.0, 0.35)" in said
  assert "data.also_labels='pancreas,liver" in said
  config = resolve_draft(draft, data=False)
  assert config.painting == RunConfig().painting
  assert config.data.also_labels == ""


def test_an_earlier_run_that_said_what_nothing_reads_opens_and_goes_on(tmp_path):
  """Also where the command that resumes it leaves that out."""
  stored = replace_keys(RunConfig(), PAINTED)
  (tmp_path / "config.json").write_text(to_json(stored))
  assert load_config(tmp_path / "config.json") == stored
  assert find_differences(stored, RunConfig()) == {}
  painted = replace_keys(RunConfig(), {"painting.enabled": True, **PAINTED})
  assert find_differences(stored, painted) == {"painting.enabled": (False, True)}
