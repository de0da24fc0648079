import jax
import numpy as np
import pytest

from attn_unet_jax.models.hnn import VIEWS
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.weights.from_pytorch import load_pytorch_state, read_state_dict
from attn_unet_jax.weights.oktay2018 import convert_released, get_released_name
from attn_unet_jax.workflows.load_run import load_best, open_run
from attn_unet_jax.workflows.network import build_run_network
from tests.configs import with_keys
from tests.conftest import BY_MLIR, flags_of, run_command

torch = pytest.importorskip("torch", reason="the extra 'bench' is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra 'bench'")
SIDES = [f"side{i}" for i in range(1, 6)]
SHAPE = (32, 16, 16)  # X, Y, Z; axes of unlike size would show if they were mixed up


def twin(gates: int, classes: int = 3, *, shared: bool = False):
  """A reference network whose every variable is drawn at random, the statistics too."""
  from benchmarks.torch_twin import TorchTwin

  torch.manual_seed(0)
  net = TorchTwin(classes, gates, 16.0)
  if shared:
    share_signal(net, gates)
  net.eval()
  with torch.no_grad():
    for name, value in net.state_dict().items():
      if name.endswith("running_var"):
        value.uniform_(0.5, 2)
      elif value.dtype.is_floating_point:
        value.add_(0.1 * torch.randn_like(value))
  return net


def share_signal(net, gates: int) -> None:
  """As first released: the bottleneck's signal, at half its channels, for the gates of all levels.

  Each gate brings phi of it to its own grid.
  """
  from benchmarks.torch_twin import Gates, conv_norm_relu, upsample

  net.gating.conv1, kept = conv_norm_relu(64, 32, 1), {}
  net.gating.register_forward_hook(lambda _, given, signal: kept.update(signal=signal))
  for level, channels in ((2, 8), (3, 16), (4, 32)):
    block = Gates(channels, 32, gates)
    block.register_forward_pre_hook(lambda _, given: (given[0], kept["signal"]))
    grid = torch.Size([1, 1, *(n // 2**level for n in SHAPE)])
    for name in block.gates:
      phi = block.get_submodule(name).phi
      phi.register_forward_hook(lambda _, given, y, grid=grid: upsample(y, grid))
    setattr(net, f"attentionblock{level}", block)


def config_of(config, gates: int, gating: str = "progressive"):
  keys = {
    "model.name": "attention_unet" if gates else "unet",
    "model.feature_scale": 16.0,
    "model.conv": "native",
    "data.labels": "pancreas=2,spleen=1",
  }
  if gates:
    keys |= {"model.gates": gates, "model.gating": gating}
  return with_keys(config, keys)


@pytest.mark.parametrize(
  ("gates", "gating", "upsampling"),
  [
    (0, "progressive", "align_corners"),
    (1, "progressive", "align_corners"),
    (2, "progressive", "align_corners"),
    (2, "progressive", "half_pixel"),
    (2, "shared", "align_corners"),
  ],
)
def test_logits_are_those_of_the_same_network_in_pytorch(
  config, gates, gating, upsampling, tmp_path, monkeypatch
):
  net, config = twin(gates, shared=gating == "shared"), config_of(config, gates, gating)
  config = with_keys(config, {"model.upsampling": upsampling})
  aligned = upsampling == "align_corners"
  monkeypatch.setattr("benchmarks.torch_twin.ALIGN_CORNERS", aligned)
  torch.save(net.state_dict(), tmp_path / "weights.pth")
  state = load_pytorch_state(tmp_path / "weights.pth", config, config.model)
  image = np.random.default_rng(1).normal(size=(1, 1, *SHAPE)).astype(np.float32)
  with torch.no_grad():
    expected = net(torch.from_numpy(image)).numpy()
  logits, _ = jax.jit(lambda v, x: build_run_network(config, 3).apply(v, x, train=False))(
    state.variables, np.moveaxis(image, 1, -1)
  )
  assert expected.std() > 0.1
  np.testing.assert_allclose(np.moveaxis(logits, -1, 1), expected, atol=1e-4)


@pytest.mark.soak
def test_gradients_are_those_of_the_same_network_in_pytorch(config, tmp_path):
  """Compiled as for users: fusions once lost part of this very gradient, see `larger_of_two`.

  That has a short test in test_layers.py. Here logits are compared with PyTorch's, and in
  test_attention_unet.py gradients with differences.
  """
  net, config = twin(2), config_of(config, 2)
  config = with_keys(config, {"model.conv": "auto"})
  torch.save(net.state_dict(), tmp_path / "weights.pth")
  image, weights = np.random.default_rng(1).normal(size=(2, 2, 1, 48, 48, 48))
  net.double().train()
  torch.sum(net(torch.from_numpy(image)) * torch.from_numpy(weights)).backward()
  with jax.enable_x64(True):
    state = load_pytorch_state(tmp_path / "weights.pth", config, config.model)
    module = build_run_network(config, 3).clone(dtype="float64")

    def loss(params):
      variables, x = {**state.variables, "params": params}, np.moveaxis(image, 1, -1)
      (logits, _), _ = module.apply(variables, x, True, mutable=["batch_stats"])
      return jax.numpy.sum(logits * np.moveaxis(weights, 1, -1))

    users = {"xla_backend_optimization_level": 3, **BY_MLIR}
    found = jax.jit(jax.grad(loss)).lower(state.params).compile(users)(state.params)
  named = {name: p.grad.numpy() for name, p in net.named_parameters()}
  expected = convert_released(named, {"params": state.params})["params"]
  largest = max(float(abs(g).max()) for g in jax.tree.leaves(expected))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest), found, expected
  )


def vgg16(scale=1):
  """Torchvision's layers, called by its names; every weight is drawn at random."""
  torch.manual_seed(0)
  layers, before = [], 3
  for width in (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"):
    if width == "M":
      layers.append(torch.nn.MaxPool2d(2, 2))
    else:
      width //= scale
      layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU()]
      torch.nn.init.kaiming_normal_(layers[-2].weight)
      torch.nn.init.normal_(layers[-2].bias, std=0.1)
      before = width
  net = torch.nn.Module()
  net.features, net.classifier = torch.nn.Sequential(*layers), torch.nn.Linear(7, 2)
  return net.eval()


def nested(net, heads, slices):
  """The six maps [S, A, B, 6] of slices [S, A, B], by PyTorch's layers and their hooks."""
  mean, sd = (
    torch.tensor(v)[None, :, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
  )
  x, maps = (torch.from_numpy(slices)[:, None].expand(-1, 3, -1, -1) - mean) / sd, []
  for layer in net.features[:-1]:
    if isinstance(layer, torch.nn.MaxPool2d):
      maps.append(x)
    x = layer(x)
  maps = [
    torch.nn.functional.interpolate(
      torch.einsum("schw,c->shw", m, torch.tensor(w[:, 0]))[:, None] + torch.tensor(b),
      slices.shape[1:],
      mode="bilinear",
      align_corners=False,
    )
    for m, (w, b) in zip([*maps, x], heads[:5], strict=True)
  ]
  sides = torch.cat(maps, 1)
  fused = torch.einsum("schw,c->shw", sides, torch.tensor(heads[5][0][:, 0]))[:, None]
  return torch.cat([sides, fused + torch.tensor(heads[5][1])], 1).movedim(1, -1).numpy()


@pytest.mark.slow
def test_imagenets_trunk_answers_in_every_view_as_in_pytorch(config, tmp_path):
  """An eighth of VGG-16's width."""
  net = vgg16(8)
  torch.save(net.state_dict(), tmp_path / "vgg16.pth")
  config = with_keys(config, {"model.name": "hnn", "model.feature_scale": 8.0})
  params = load_pytorch_state(tmp_path / "vgg16.pth", config, config.model).params
  rng = np.random.default_rng(1)
  for view in params.values():
    for name in (name for name in view if not name.startswith("stage")):
      assert name == "fuse" or not view[name]["kernel"].any()
      view[name] = {k: rng.normal(0, 0.1, a.shape).astype("f") for k, a in view[name].items()}
  x = rng.uniform(size=(1, 16, 32, 16, 1)).astype(np.float32)
  apply = jax.jit(
    lambda v, x: build_run_network(config, 2).apply(v, x, train=False)[1]["side_logits"]
  )
  found = apply({"params": params}, x)
  for view, axis in VIEWS.items():
    heads = [(params[view][n]["kernel"], params[view][n]["bias"]) for n in (*SIDES, "fuse")]
    with torch.no_grad():
      expected = nested(net, heads, np.moveaxis(x[0, ..., 0], axis - 1, 0))
    assert expected.std() > 0.1
    np.testing.assert_allclose(np.moveaxis(found[axis][0], axis - 1, 0), expected, atol=3e-4)


@pytest.mark.slow
@pytest.mark.soak
def test_a_training_starts_from_imagenets_trunk_or_says_that_it_does_not(
  config, tmp_path, phantoms
):
  """The commands; the trunk is an eighth of VGG-16's width."""
  torch.save(vgg16(8).state_dict(), tmp_path / "vgg16.pth")
  config = with_keys(
    config,
    {
      "model.name": "hnn",
      "model.feature_scale": 8.0,
      "data.dir": str(phantoms),
      "loss.dice": 0.0,
      "loss.bce": 0.0,
      "loss.side_bce": 1.0,
      "train.epochs": 1,
      "train.steps_per_epoch": 2,
      "optimizer.learning_rate": 1e-9,
    },
  )
  flags = ["--config=tests/small.py", *flags_of(config)]
  vgg, trained = tmp_path / "vgg", tmp_path / "trained"
  made = run_command(
    "attn_unet_jax.convert", *flags, f"--input={tmp_path / 'vgg16.pth'}", f"--workdir={vgg}"
  )
  assert made.returncode == 0, made.stderr
  begun = run_command(
    "attn_unet_jax.main", *flags, f"--workdir={trained}", f"--config.init.workdir={vgg}"
  )
  assert begun.returncode == 0, begun.stderr
  assert f"from step 0 of {vgg}" in begun.stdout
  assert "random weights" not in begun.stdout
  kernel = load_best(trained).variables["params"]["coronal"]["stage5"]["conv3"]["kernel"]
  weight = vgg16(8).features[28].weight.detach().numpy()
  np.testing.assert_allclose(kernel, weight.transpose(2, 3, 1, 0), atol=1e-6)
  fresh = run_command("attn_unet_jax.main", *flags, f"--workdir={tmp_path / 'fresh'}")
  assert fresh.returncode == 0, fresh.stderr
  assert "from random weights, not from ImageNet's" in fresh.stdout


@pytest.mark.slow
def test_another_vgg_or_another_width_is_refused(config, tmp_path):
  state_dict = vgg16(8).state_dict()
  torch.save(state_dict, tmp_path / "vgg16.pth")
  config = with_keys(config, {"model.name": "hnn", "model.feature_scale": 32.0})
  with pytest.raises(
    UserError, match=r"features\.0\.\w+ has the shape .*feature_scale=1 \(now 32\)"
  ):
    load_pytorch_state(tmp_path / "vgg16.pth", config, config.model)
  del state_dict["features.28.weight"]
  config = with_keys(config, {"model.feature_scale": 8.0})
  torch.save(state_dict, tmp_path / "vgg13.pth")
  with pytest.raises(UserError, match=r"vgg13\.pth: features\.28\.weight is missing; needed is"):
    load_pytorch_state(tmp_path / "vgg13.pth", config, config.model)


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
  with pytest.raises(UserError, match="a folder; name the file in it"):
    read_state_dict(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_of_a_training_that_diverged_are_refused(tmp_path, value):
  weights = {"final.weight": torch.ones(2, 3), "final.bias": torch.tensor([0.0, value])}
  torch.save(weights, tmp_path / "a.pth")
  safetensors.save_file(weights, tmp_path / "a.safetensors")
  for name in ("a.pth", "a.safetensors"):
    with pytest.raises(UserError, match=rf"{name}: final\.bias has values that are NaN or inf"):
      read_state_dict(tmp_path / name)


def test_another_network_is_refused_and_the_files_own_is_named(config, tmp_path):
  torch.save(twin(1).state_dict(), tmp_path / "single.pth")
  config = config_of(config, 2)
  with pytest.raises(UserError, match=r"33 missing.*attention_unet with model\.gates=1"):
    load_pytorch_state(tmp_path / "single.pth", config, config.model)
  config = with_keys(config, {"model.gates": 1, "model.gating": "shared"})
  with pytest.raises(UserError, match=r"model\.gates=1 and model\.gating=progressive"):
    load_pytorch_state(tmp_path / "single.pth", config, config.model)
  config = with_keys(config, {"model.gating": "progressive", "data.labels": "pancreas=2"})
  with pytest.raises(UserError, match=r"final.*2 classes beside the background"):
    load_pytorch_state(tmp_path / "single.pth", config, config.model)
  config = with_keys(config, {"model.name": "vnet"})
  with pytest.raises(UserError, match="the reference has no variable like"):
    load_pytorch_state(tmp_path / "single.pth", config, config.model)


def test_the_first_releases_network_is_named(config, tmp_path):
  torch.save(twin(2, shared=True).state_dict(), tmp_path / "first.pth")
  config = config_of(config, 2)
  with pytest.raises(UserError, match=r"match.*model\.gates=2 and model\.gating=shared"):
    load_pytorch_state(tmp_path / "first.pth", config, config.model)


def test_names_and_layout():
  assert get_released_name("encoder2/ConvNormRelu_1/BatchNorm_0/BatchNorm_0/var") == (
    "conv2.conv2.1.running_var"
  )
  assert get_released_name("skip3/gate1/output/kernel") == "attentionblock3.gate_block_2.W.0.weight"
  kernel = np.arange(2 * 3 * 8).reshape(2, 3, 2, 2, 2)
  like = {"params": {"skip2": {"gate0": {"theta": {"kernel": np.zeros((2, 2, 2, 3, 2))}}}}}
  name = "module.attentionblock2.gate_block_1.theta.weight"  # as data-parallel training saves it
  ours = convert_released({name: kernel}, like)["params"]["skip2"]["gate0"]["theta"]["kernel"]
  assert ours[1, 0, 1, 2, 0] == kernel[0, 2, 1, 0, 1]


@pytest.mark.slow
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
  assert "contains a run already" in again.stderr
