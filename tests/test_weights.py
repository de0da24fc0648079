import jax
import numpy as np
import pytest

from attn_unet_jax.errors import UserError
from attn_unet_jax.inference.trained import open_run
from attn_unet_jax.models.reference import from_reference, reference_name
from attn_unet_jax.training.state import network
from attn_unet_jax.weights import converted, read_state_dict
from tests.conftest import run_command

torch = pytest.importorskip("torch", reason="the extra 'bench' is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra 'bench'")
SHAPE = (32, 16, 16)  # X, Y, Z; axes of unlike size would show if they were mixed up


def twin(gates: int, classes: int = 3):
  """A reference network whose every variable is drawn at random, the statistics too."""
  from benchmarks.torch_twin import TorchTwin

  torch.manual_seed(0)
  net = TorchTwin(classes, gates, 16.0).eval()
  with torch.no_grad():
    for name, value in net.state_dict().items():
      if name.endswith("running_var"):
        value.uniform_(0.5, 2)
      elif value.dtype.is_floating_point:
        value.add_(0.1 * torch.randn_like(value))
  return net


def config_of(config, gates: int):
  config.model.name = "attention_unet" if gates else "unet"
  config.model.gates = gates or 2
  config.model.feature_scale = 16.0
  config.model.conv = "native"
  config.data.labels = "pancreas=2,spleen=1"
  return config


@pytest.mark.parametrize("gates", [0, 2])
def test_logits_are_those_of_the_same_network_in_pytorch(config, gates, tmp_path):
  net, config = twin(gates), config_of(config, gates)
  torch.save(net.state_dict(), tmp_path / "weights.pth")
  state = converted(tmp_path / "weights.pth", config)
  image = np.random.default_rng(1).normal(size=(1, 1, *SHAPE)).astype(np.float32)
  with torch.no_grad():
    expected = net(torch.from_numpy(image)).numpy()
  logits, _ = jax.jit(lambda v, x: network(config, 3).apply(v, x, train=False))(
    state.variables, np.moveaxis(image, 1, -1)
  )
  assert expected.std() > 0.1
  np.testing.assert_allclose(np.moveaxis(logits, -1, 1), expected, atol=1e-4)


def test_both_file_formats_hold_the_same(tmp_path):
  weights = twin(2).state_dict()
  torch.save(weights, tmp_path / "a.pth")
  safetensors.save_file(weights, tmp_path / "a.safetensors")
  pickled, safe = (read_state_dict(tmp_path / name) for name in ("a.pth", "a.safetensors"))
  assert pickled.keys() == safe.keys() == weights.keys()
  assert all(np.array_equal(pickled[name], safe[name]) for name in weights)


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path):
  class Trap:
    def __reduce__(self):
      return (open, (str(tmp_path / "sprung"), "w"))

  torch.save({"conv1": Trap()}, tmp_path / "trap.pth")
  with pytest.raises(UserError, match=r"trap\.pth: not a state_dict"):
    read_state_dict(tmp_path / "trap.pth")
  assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path, name):
  (tmp_path / name).write_bytes(b"no weights at all")
  with pytest.raises(UserError, match="not a state_dict"):
    read_state_dict(tmp_path / name)
  with pytest.raises(UserError, match="no such file"):
    read_state_dict(tmp_path / "absent.pth")


def test_another_network_is_refused_and_the_files_own_is_named(config, tmp_path):
  torch.save(twin(1).state_dict(), tmp_path / "single.pth")
  config = config_of(config, 2)
  with pytest.raises(UserError, match=r"33 missing.*attention_unet with model\.gates=1"):
    converted(tmp_path / "single.pth", config)
  config.model.gates = 1
  config.data.labels = "pancreas=2"
  with pytest.raises(UserError, match=r"final.*2 classes beside the background"):
    converted(tmp_path / "single.pth", config)
  config.model.name = "vnet"
  with pytest.raises(UserError, match="the reference has no variable like"):
    converted(tmp_path / "single.pth", config)


def test_names_and_layout():
  assert reference_name("encoder2/ConvNormRelu_1/BatchNorm_0/BatchNorm_0/var") == (
    "conv2.conv2.1.running_var"
  )
  assert reference_name("skip3/gate1/output/kernel") == "attentionblock3.gate_block_2.W.0.weight"
  kernel = np.arange(2 * 3 * 8).reshape(2, 3, 2, 2, 2)
  like = {"params": {"skip2": {"gate0": {"theta": {"kernel": np.zeros((2, 2, 2, 3, 2))}}}}}
  name = "module.attentionblock2.gate_block_1.theta.weight"  # as data-parallel training saves it
  ours = from_reference({name: kernel}, like)["params"]["skip2"]["gate0"]["theta"]["kernel"]
  assert ours[1, 0, 1, 2, 0] == kernel[0, 2, 1, 0, 1]


def test_the_command_makes_a_run_that_opens(config, tmp_path):
  torch.save(twin(2).state_dict(), tmp_path / "weights.pth")
  arguments = ("--config=experiments/pancreas.py:phantom", f"--input={tmp_path / 'weights.pth'}",
               f"--workdir={tmp_path / 'run'}", "--config.model.feature_scale=16",
               "--config.data.labels=spleen=1,pancreas=2")  # fmt: skip
  done = run_command("attn_unet_jax.convert", *arguments)
  assert done.returncode == 0, done.stderr
  assert open_run(tmp_path / "run").classes == ("spleen", "pancreas")
  again = run_command("attn_unet_jax.convert", *arguments)
  assert again.returncode == 2
  assert again.stderr.startswith("error: ")
  assert "holds a run already" in again.stderr
