"""Compiles the training step for devices that this machine does not have.

To compile for a GPU, XLA needs only its description, and for a TPU slice only its name, besides
JAX's plugin for the kind of device (`pip install '.[cuda]'`, `'.[tpu]'`). Nothing is run. The
compiled program tells how much memory a device needs and what the devices exchange. A program for a
GPU lacks only what XLA measures on the GPU itself: which algorithm of a convolution or a matrix
product is fastest, and the workspace of that algorithm.
"""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import topologies

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.patches.batch import output_shape
from attn_unet_jax.patches.device_source import ResidentSet, make_resident
from attn_unet_jax.patches.padded_case import Shape
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.mesh import make_replicated_sharding
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import abstract_state


class GpuDescription(NamedTuple):
  """A GPU as XLA describes it, by NVIDIA's data sheets and CUDA's table of compute capabilities.

  Attributes:
    name: the name that CUDA reports.
    capability: the compute capability, major and minor.
    cores: the number of streaming multiprocessors, and of float32 units in each.
    shared: the shared memory of a multiprocessor in KiB; a block may take 1 KiB less.
    cache: the second-level cache in MiB.
    clock: the highest clock rate in GHz.
    bandwidth: the bandwidth of the memory in GB/s.
    memory: the bytes that a program can have.
  """

  name: str
  capability: tuple[int, int]
  cores: tuple[int, int]
  shared: int
  cache: int
  clock: float
  bandwidth: int
  memory: int


GPUS = {
  "a100-40": GpuDescription(
    "NVIDIA A100-SXM4-40GB", (8, 0), (108, 64), 164, 40, 1.41, 1555, 42_298_834_944
  ),
  "a100": GpuDescription(
    "NVIDIA A100-SXM4-80GB", (8, 0), (108, 64), 164, 40, 1.41, 2039, 84_987_740_160
  ),
  "h100": GpuDescription(
    "NVIDIA H100 80GB HBM3", (9, 0), (132, 128), 228, 50, 1.98, 3352, 84_929_347_584
  ),
  "h200": GpuDescription("NVIDIA H200", (9, 0), (132, 128), 228, 50, 1.98, 4800, 150_754_820_096),
}
TPUS = ("v5e", "v5p", "v6e")

# Triton chooses the tiles of a matrix product by measuring. Without a GPU it falls back to tiles
# that may not fit.
_UNMEASURED = {"xla_gpu_enable_triton_gemm": False}

_KINDS = "|".join([*GPUS, *TPUS])
_NAME = re.compile(rf"({_KINDS})(?::([1-9]\d*(?:x[1-9]\d*){{0,2}}))?")
# Without these libtpu looks for a slice that this machine is part of, and for its other users.
_LIBTPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def describe_devices(name: str) -> list[jax.Device]:
  """Describes the devices that a name stands for.

  Args:
    name: `h100`, one GPU; `h100:8`, the GPUs of a host; `h100:2x8`, those of two hosts. `v5e`, one
      TPU chip; `v5e:4x4` or `v5p:2x2x2`, a slice by its chips along each axis.

  Raises:
    UserError: the name or the slice does not exist, or JAX's plugin is not installed.
  """
  found = _NAME.fullmatch(name)
  if not found:
    known = ", ".join([*GPUS, *TPUS])
    raise UserError(
      f"--target={name}: names no device; use one of {known}, or several, as h100:8 or v5e:4x4"
    )
  kind, sizes = found[1], found[2] or "1"
  extra = "cuda" if kind in GPUS else "tpu"
  try:
    return _describe_gpus(GPUS[kind], sizes) if kind in GPUS else _describe_tpus(kind, sizes)
  except (NotImplementedError, RuntimeError, ImportError) as error:
    if "not implemented for" in str(error) or "not installed" in str(error):
      raise UserError(
        f"--target={name}: JAX's plugin is missing; pip install '.[{extra}]'"
      ) from None
    # JAX's error is a status code, then the reason, and more lines.
    reason = str(error).splitlines()[0].partition(": ")[2]
    raise UserError(
      f"--target={name}: {reason}; give a slice's chips along each axis, as v5e:4x4 or v5p:2x2x2"
    ) from None


def _describe_gpus(gpu: GpuDescription, sizes: str) -> list[jax.Device]:
  """Describes GPUs by hosts and GPUs per host."""
  # XLA wants three numbers: slices, hosts of a slice, and GPUs of a host.
  shape = ("1x1x" + sizes).split("x")[-3:]
  return topologies.get_topology_desc(
    platform="cuda", target_config=_format_target(gpu), topology="x".join(shape)
  ).devices


def _format_target(gpu: GpuDescription) -> str:
  """Formats XLA's GpuTargetConfigProto as text, for cuDNN 9.10 and CUDA 12.9."""
  major, minor = gpu.capability
  return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {gpu.cores[0]} fpus_per_core: {gpu.cores[1]}
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {(gpu.shared - 1) * 1024}
  shared_memory_per_core: {gpu.shared * 1024}
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  l2_cache_size: {gpu.cache * 2**20} clock_rate_ghz: {gpu.clock}
  memory_bandwidth: {gpu.bandwidth * 10**9} device_memory_size: {gpu.memory}
}}
platform_name: "CUDA" device_description_str: "{gpu.name}"
dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 9 }}
"""


def _describe_tpus(kind: str, sizes: str) -> list[jax.Device]:
  """Describes a TPU slice by its chips along each axis.

  Raises:
    UserError: the slice has another number of axes than its kind.
  """
  for key, value in _LIBTPU.items():
    os.environ.setdefault(key, value)  # what the user has set stays
  axes, example = (3, "v5p:2x2x2") if kind == "v5p" else (2, f"{kind}:4x4")
  if sizes == "1":
    # By default a host of a slice has several chips.
    one, host = "x".join("1" * axes), {"chips_per_host_bounds": (1, 1, 1)}
    return topologies.get_topology_desc(f"{kind}:{one}", "tpu", **host).devices
  if sizes.count("x") != axes - 1:
    raise UserError(f"--target={kind}:{sizes}: a slice of {kind} has {axes} axes, as {example}")
  return topologies.get_topology_desc(f"{kind}:{sizes}", "tpu").devices


def describe_training_set(
  recipe: TrainingRecipe, module: nn.Module, scan: Shape, scans: int
) -> ResidentSet:
  """Describes a resident set by its shapes and types.

  Args:
    recipe: the options of the training.
    module: the network.
    scan: the shape of a scan in the working grid.
    scans: the number of scans.
  """
  # One case of zeros of each kind gives all shapes but the number of scans, without their memory.
  kinds = [np.uint8 if recipe.painting.enabled else np.int16]
  if recipe.data.also:
    kinds.insert(0, np.int16)
  some = [WorkingCase("", np.zeros(scan, kind), np.zeros(scan, np.uint8), 0, 1) for kind in kinds]
  also = scans // 2 if recipe.data.also else 0
  extent = output_shape(recipe.data.patch, module.output_margin)
  matched = recipe.augment.histogram_probability > 0
  held = make_resident(some, extent, histograms=matched, also=also)
  result: ResidentSet = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((scans, *x.shape[1:]), x.dtype), held
  )
  return result


def compile_for_devices(
  recipe: TrainingRecipe, module: nn.Module, data: ResidentSet, described: Sequence[jax.Device]
) -> jax.stages.Compiled:
  """Compiles the training step for these devices.

  Args:
    recipe: the options of the training.
    module: the network.
    data: the shapes of the training set.
    described: the devices; the recipe may ask for fewer.

  Raises:
    UserError: the recipe does not fit the devices, see `mesh.select_devices`, or asks for `pmap`.
    JaxRuntimeError: RESOURCE_EXHAUSTED, if the step does not fit the memory of a TPU.
  """
  if recipe.parallel.mode == "pmap":
    raise UserError(
      "config.parallel.mode='pmap': cannot be compiled for devices of other machines; use "
      "--config.parallel.mode=jit, which computes the same"
    )
  step: Any = compile_step(recipe, module, present=described)
  sharding = make_replicated_sharding(recipe, described)

  def on_device(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Places a shape on each of the devices."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  state, data = jax.tree.map(on_device, (abstract_state(recipe, module), data))
  options = _UNMEASURED if described[0].platform == "gpu" else {}
  result: jax.stages.Compiled = step.lower(state, data).compile(compiler_options=options)
  return result
