"""A build's memory does not grow with the number of its cases."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

BUILD = """
import resource, sys
from pathlib import Path
import numpy as np
import tensorflow_datasets as tfds
from tfds_pancreas.case_parts import MadeCase
from tfds_pancreas.record_builder import RecordBuilder
from tfds_pancreas.records import VolumeConfig, make_volume_info
from tfds_pancreas.phantom_ct.phantom_case import PhantomCase

def noise(case):
  rng = np.random.default_rng(case.number)
  image = rng.integers(-30000, 30000, (128, 128, 128)).astype(np.int16)
  record = {"image": image, "label": image.astype(np.uint8), "affine": np.eye(4)}
  return MadeCase(case.id, {"id": case.id, **record})

class Noisy(RecordBuilder):
  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (VolumeConfig(name="a", description="Noise.", shards=None),)

  def _info(self):
    return make_volume_info(self, {"one": 1}, "Noise.")

  def list_cases(self, manual_dir):
    return {"train": [PhantomCase(number) for number in range(int(sys.argv[2]))]}

  def get_case_maker(self):
    return noise

Noisy(data_dir=sys.argv[1], workers=1).download_and_prepare(download_dir=sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(folder, cases):
  command = [sys.executable, "-c", BUILD, str(folder), str(cases)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  return float(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_stays_however_many_cases_there_are(tmp_path):
  few, many = peak_mb(tmp_path / "few", 5), peak_mb(tmp_path / "many", 45)
  assert many - few < 80  # 250 MB of records more
