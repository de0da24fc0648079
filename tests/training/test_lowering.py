"""The training step and the prediction window lowered for GPU and TPU, on a machine without."""

import re
import subprocess
import sys

import numpy as np
import pytest
from jax import export

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.patches.batch import make_training_cropper
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.patches.host_cropper import stack_blocks
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.placement import plan_placement
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from tests.configs import small_config, with_keys
from tests.conftest import ROOT, host_devices

DTYPES = {"float32": "f32", "bfloat16": "bf16"}


def _config(dtype):
  """All of the step: every augmentation, gates, batch statistics, averaged parameters."""
  return small_config(
    **{
      "model.dtype": dtype,
      "optimizer.ema_decay": 0.99,
      "augment.flip": (0.5, 0.5, 0.5),
      "augment.rotate_deg": (5.0, 5.0, 15.0),
      "augment.shift": (0.1, 0.1, 0.1),
      "augment.scale": (0.7, 1.3),
      "augment.corner_scale": 0.1,
      "augment.deform_sd": (1.0, 1.0, 1.0),
      "augment.histogram_probability": 0.5,
      "augment.intensity_scale": (0.9, 1.1),
      "augment.intensity_shift": (-0.1, 0.1),
      "augment.noise_sd": (0.0, 0.1),
      "augment.noise_probability": 0.5,
      "augment.blur_probability": 0.5,
      "augment.brightness_probability": 0.5,
      "augment.contrast_probability": 0.5,
      "augment.low_resolution_probability": 0.5,
      "augment.gamma_probability": 0.5,
      "augment.gamma_inverted_probability": 0.5,
      "augment.extra": ("gamma",),
    }
  )


def _program(config, what, platforms):
  """The exported program, as text; nothing is compiled."""
  module = build_run_network(config, 2)
  state = abstract_state(config, module)
  if what != "window":
    case = WorkingCase("a", np.zeros((90, 90, 90), np.int16), np.zeros((90,) * 3, np.uint8), 0, 1)
    streamed = what == "streamed step"
    feed = (
      _fed(config, case) if streamed else make_resident([case], config.data.patch, histograms=True)
    )
    function, arguments = compile_step(config, module, streamed=streamed), (state, feed)
  else:
    function = SlidingWindow(config, module).window
    hu, number = np.zeros((16, 16, 16), np.int16), np.float32(0)
    arguments = (state.variables, hu, number, number)
  exported = export.export(function, platforms=platforms)(*arguments)
  assert exported.platforms == tuple(platforms)
  return exported.mlir_module()


def _fed(config, case):
  """What a streaming source feeds the first step."""
  rows, put = plan_placement(config)
  cutter = make_training_cropper(config, [case])
  return put(0, stack_blocks([cutter(0, row) for row in rows]))


def _first_features(text):
  """Channels that the program's first convolution gives."""
  return int(re.search(r"stablehlo\.convolution.*-> tensor<(?:\d+x)*(\d+)x[a-z]", text)[1])


def _convolutions(text):
  """How many convolutions there are by rank, and the types that they compute in."""
  found = re.findall(r"stablehlo\.convolution.*-> tensor<((?:\d+x)+)(\w+)>", text)
  ranks = [shape.count("x") for shape, _ in found]
  return {rank: ranks.count(rank) for rank in set(ranks)}, {kind for _, kind in found}


@pytest.mark.parametrize(
  ("what", "dtype"),
  [
    ("window", "bfloat16"),
    pytest.param("window", "float32", marks=pytest.mark.slow),
    pytest.param("step", "bfloat16", marks=pytest.mark.slow),
    pytest.param("step", "float32", marks=pytest.mark.soak),
    pytest.param("streamed step", "bfloat16", marks=pytest.mark.soak),
  ],
)
def test_lowers_for_gpu_and_tpu_in_their_own_form(what, dtype):
  """Every convolution is XLA's own, of rank 5, in the compute type; and there are no foreign calls.

  The form for the CPU, on which this runs, would show as convolutions of rank 4.
  """
  texts = [_program(_config(dtype), what, [platform]) for platform in ("cuda", "tpu")]
  for text in texts:
    ranks, kinds = _convolutions(text)
    # 18 of 3x3x3; in the step each with its two gradients, but the image's own.
    assert ranks == {5: 18 if what == "window" else 18 * 3 - 1}
    assert kinds == {DTYPES[dtype]}
    assert "custom_call" not in text
  # On a GPU the 16 voxels along Z of the image are packed.
  on_gpu, on_tpu = (_first_features(text) for text in texts)
  assert on_gpu == 16 * on_tpu


@pytest.mark.soak
def test_a_step_of_eight_devices_lowers_for_gpu_and_tpu():
  """Its batch over four, its patches over two: in a process that sees as many.

  test_topology.py compiles the like, where the compilers are.
  """
  program = """
from tests.configs import with_keys
from tests.training.test_lowering import _config, _program
config = with_keys(_config("bfloat16"), {"train.batch_size": 4, "data.patch": (64, 16, 16)})
config = with_keys(config, {"parallel.data": 4, "parallel.space": 2})
print(_program(config, "step", ["cuda", "tpu"]))
"""
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, env=host_devices(8), capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  ranks, kinds = _convolutions(done.stdout)
  assert (set(ranks), kinds) == ({5}, {"bf16"})
  assert "custom_call" not in done.stdout
  assert re.search(r"sdy.mesh @mesh = <\[.*=4, .*=2\]>", done.stdout)


def test_no_augmentation_is_left_out():
  """Each option differs from its neutral value, but for how often and how finely it applies."""
  drawn, neutral = vars(_config("float32").augment), vars(Augmentation())
  left = {name for name, value in drawn.items() if value == neutral[name]}
  ranges = {"blur_sd", "brightness_factor", "contrast_factor", "low_resolution_zoom", "gamma_range"}
  assert left == {"spatial_probability", "deform_spacing", "deform_probability", *ranges}


@pytest.mark.slow
def test_the_form_is_that_of_the_platform_lowered_for():
  """By hand: 8 of the convolutions have at least 512 voxels, so six products, 10 have three."""
  config = _config("float32")
  assert _convolutions(_program(config, "window", ["cpu"]))[0] == {4: 8 * 6 + 10 * 3}
  assert _convolutions(_program(config, "window", ["cuda"]))[0] == {5: 18}


@pytest.mark.slow
def test_slices_lower_as_2d_convolutions_on_every_platform():
  """13 of 3x3 in each of three views, the slices in the batch."""
  config = with_keys(_config("bfloat16"), {"model.name": "hnn"})
  for platforms in (["cuda", "tpu"], ["cpu"]):
    text = _program(config, "window", platforms)
    assert _convolutions(text) == ({4: 39 * len(platforms)}, {"bf16"})
    assert "custom_call" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "unet3d", "vnet", "vnet_caffe"])
def test_the_other_networks_lower_too(name):
  padding = {"model.padding": "SAME"} if name == "unet3d" else {}  # the others always pad
  config = with_keys(_config("bfloat16"), {"model.name": name, **padding})
  ranks, kinds = _convolutions(_program(config, "window", ["cuda", "tpu"]))
  assert set(ranks) == {5}
  assert kinds == {"bf16"}
