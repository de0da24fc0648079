"""What holds for the builders of all data sets."""

import importlib
import pickle

import pytest

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.build_dataset import DATASETS


@pytest.fixture(params=DATASETS)
def builder_class(request):
  return importlib.import_module(
    f"tfds_pancreas.{request.param}.{request.param}_dataset_builder"
  ).Builder


def test_no_worker_needs_the_builders_own_module(builder_class, tmp_path):
  """Because `tfds build` loads that one by a name that workers cannot import."""
  builder = builder_class(config=next(iter(builder_class.builder_configs)), data_dir=tmp_path)
  assert builder_class.__module__.encode() not in pickle.dumps(builder.get_case_maker())


def test_no_other_file_format_is_promised(builder_class, tmp_path):
  config = next(iter(builder_class.builder_configs))
  with pytest.raises(UserError, match="file_format=tfrecord: these data sets are written as array"):
    builder_class(config=config, data_dir=tmp_path, file_format="tfrecord")
  assert builder_class(config=config, data_dir=tmp_path).info.file_format.value == "array_record"
