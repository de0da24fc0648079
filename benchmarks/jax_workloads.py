"""The work of `network_speed` done by our network, and the operations in it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.models.build import build_network
from attn_unet_jax.models.ops.conv import Form
from attn_unet_jax.models.options import AttentionUNetOptions
from benchmarks.contenders import Work


def soft_dice_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """One minus the soft Dice of the foreground; logits [N, X, Y, Z, 2], labels [N, X, Y, Z]."""
  foreground = jax.nn.softmax(logits)[..., 1]
  overlap = jnp.sum(foreground * labels)
  return 1 - 2 * overlap / (jnp.sum(foreground) + jnp.sum(labels))


def programs(form: Form, dtype: str = "float32") -> tuple[Any, dict[str, Any]]:
  """What draws the variables for images, and the work: of `(variables, images, labels)`, to jit.

  Args:
    form: of the convolutions.
    dtype: compute type; parameters, statistics, softmax and loss are float32.
  """
  network = build_network(AttentionUNetOptions(conv=form, dtype=dtype))

  def draw(images: Any) -> Any:
    return network.lazy_init(jax.random.key(0, impl="rbg"), images, train=False)

  def loss(params: Any, variables: Any, images: jax.Array, labels: jax.Array) -> Any:
    state = variables | {"params": params}
    (logits, _), updates = network.apply(state, images, True, mutable=["batch_stats"])
    return soft_dice_loss(logits, labels), updates

  def train_step(variables: Any, images: jax.Array, labels: jax.Array) -> Any:
    gradients = jax.value_and_grad(loss, has_aux=True)
    return gradients(variables["params"], variables, images, labels)

  def inference(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    del labels
    return network.apply(variables, images, False)[0]

  return draw, {"train_step": train_step, "inference": inference}


def workloads(
  form: Form,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  dtype: str = "float32",
  names: Sequence[str] = ("train_step", "inference"),
) -> dict[str, Work]:
  """A train step (gradients and new statistics) and a prediction, compiled and ready to call.

  Args:
    form: of the convolutions.
    images: [N, X, Y, Z, 1].
    labels: [N, X, Y, Z].
    dtype: compute type, float32 or bfloat16.
    names: of the works that are compiled.
  """
  draw, works = programs(form, dtype)
  given = (draw(images), jnp.asarray(images), jnp.asarray(labels))
  return {name: _compile_work(works[name], given) for name in names}


def _compile_work(work: Any, given: tuple[Any, ...]) -> Work:
  program = jax.jit(work).lower(*given).compile()
  return Work(lambda: jax.block_until_ready(program(*given)), lambda: _bytes(program))


def _bytes(program: jax.stages.Compiled) -> int | None:
  """Of a program: what it is given, what it returns, and all between."""
  told: Any = program.memory_analysis()
  if told is None:
    return None
  given, returned = told.argument_size_in_bytes, told.output_size_in_bytes
  return given + returned - told.alias_size_in_bytes + told.temp_size_in_bytes


def tflop(shape: tuple[int, ...]) -> dict[str, float | None]:
  """Operations in each work on images `[N, X, Y, Z, 1]` of a shape, in 1e12, as XLA counts them.

  Of the float32 network whose convolutions are computed directly, before XLA optimises: the same
  number whatever a contender makes of it. Nothing is compiled. XLA counts for the CPU alone: None
  where JAX_PLATFORMS leaves it out.
  """
  try:
    host = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return dict.fromkeys(("train_step", "inference"))
  draw, works = programs("native")
  with jax.default_device(host):
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(shape[:-1], jnp.float32)
    lowered: dict[str, Any] = {
      name: jax.jit(work).lower(jax.eval_shape(draw, images), images, labels)
      for name, work in works.items()
    }
  return {name: program.cost_analysis()["flops"] / 1e12 for name, program in lowered.items()}
