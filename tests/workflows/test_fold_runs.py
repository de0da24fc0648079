"""A run of all folds stands for its folds, each of which counts once."""

import json

import pytest

from attn_unet_jax.cases.folds import by_hash
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.fold_runs import expand_fold_runs
from tests.configs import with_keys


@pytest.fixture
def workdir(config, tmp_path):
  """The folder of a run of five folds."""
  folder = tmp_path / "cv"
  folder.mkdir()
  (folder / "config.json").write_text(to_json(with_keys(config, {"data.fold": "all"})))
  folds = by_hash("abcdefghij")
  (folder / "folds.json").write_text(json.dumps({"name": "own", "folds": folds}))
  for number in range(len(folds)):
    fold = folder / f"fold_{number}"
    (fold / "checkpoints" / "1").mkdir(parents=True)
    (fold / "config.json").write_text(to_json(with_keys(config, {"data.fold": number})))
    (fold / "run.json").write_text('{"exit": "done"}')
  return folder


def test_a_run_of_all_folds_stands_for_its_folds(workdir):
  folds = [workdir / f"fold_{number}" for number in range(5)]
  assert expand_fold_runs([workdir]) == folds
  assert expand_fold_runs(folds[:2]) == folds[:2]


@pytest.mark.parametrize("by_link", [False, True])
def test_a_fold_that_is_named_beside_its_run_is_refused(workdir, by_link):
  fold = workdir / "fold_0"
  if by_link:
    fold = workdir.parent / "link"
    fold.symlink_to(workdir / "fold_0")
  said = rf"--workdir={workdir},{fold}: a run is there twice, {workdir}/fold_0; name it once"
  with pytest.raises(UserError, match=said):
    expand_fold_runs([workdir, fold])
