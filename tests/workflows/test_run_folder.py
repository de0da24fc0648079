import json

import pytest

from attn_unet_jax.config.schema import RunConfig, replace_keys
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.run_folder import keep_earlier_defaults, open_run_folder

KEY = "data.label_resampling"


def _begun(workdir, stored):
  """The folder of a run with progress and that text as its config."""
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  (workdir / "config.json").write_text(stored)
  return workdir


def test_a_resumed_run_keeps_the_resampling_that_it_was_trained_with(tmp_path, capsys):
  """Whether its config names it or is older than the choice; the same flags go on."""
  nested = json.loads(to_json(replace_keys(RunConfig(), {KEY: "nearest"})))
  older = json.loads(json.dumps(nested))
  del older["data"]["label_resampling"]
  for number, stored in enumerate((nested, older)):
    workdir = _begun(tmp_path / str(number), json.dumps(stored))
    config = keep_earlier_defaults(RunConfig(), workdir)
    assert config == replace_keys(RunConfig(), {KEY: "nearest"})
    assert f"{workdir} goes on with {KEY}=nearest, as it began" in capsys.readouterr().out
    assert open_run_folder(workdir, config)
    assert (
      json.loads((workdir / "config.json").read_text())["data"]["label_resampling"] == "nearest"
    )


def test_a_run_without_progress_and_a_new_one_have_the_new_default(tmp_path, capsys):
  assert keep_earlier_defaults(RunConfig(), tmp_path) == RunConfig()
  (tmp_path / "config.json").write_text(to_json(replace_keys(RunConfig(), {KEY: "nearest"})))
  assert keep_earlier_defaults(RunConfig(), tmp_path) == RunConfig()
  workdir = _begun(tmp_path / "new", to_json(RunConfig()))
  assert keep_earlier_defaults(RunConfig(), workdir) == RunConfig()
  assert capsys.readouterr().out == ""


def test_another_resampling_than_the_default_is_still_another_run(tmp_path):
  asked = replace_keys(RunConfig(), {KEY: "onehot_linear"})
  workdir = _begun(tmp_path / "run", to_json(replace_keys(RunConfig(), {KEY: "nearest"})))
  assert keep_earlier_defaults(asked, workdir) == asked
  with pytest.raises(UserError, match=r"label_resampling: 'nearest' there, 'onehot_linear' now"):
    open_run_folder(workdir, asked)
