"""A random forest over superpixels, grown by scikit-learn and stored as plain arrays.

As arrays, it can be read without executing pickled code, and used without scikit-learn or with any
version of it. A test checks that the predictions are those of scikit-learn.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.arrays import load_arrays, refuse_arrays, save_arrays
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.stages.features import COUNT as NUM_FEATURES
from attn_unet_jax.stages.optional import require_extra

_TREES, _DEPTH = 50, 15
WAY_OUT = "remove it and start attn_unet_jax.main again, which writes a new one"


@dataclasses.dataclass(frozen=True)
class RandomForest:
  """A forest of trees as arrays `[T, N]` over their nodes, the root first.

  A superpixel goes to `left` if its `feature` is at most the `cut`, otherwise to `right`; a leaf is
  its own child. `value` is the balanced fraction of foreground among the training superpixels of a
  node. A superpixel is foreground if its probability is above `threshold`.
  """

  feature: np.ndarray
  cut: np.ndarray
  left: np.ndarray
  right: np.ndarray
  value: np.ndarray
  threshold: float = 0.5

  def probability(self, features: np.ndarray) -> np.ndarray:
    """Returns the mean probability of the trees, float64 `[S]`, for features `[S, F]`, float32."""
    rows, total = np.arange(len(features)), np.zeros(len(features))
    trees = zip(self.feature, self.cut, self.left, self.right, self.value, strict=True)
    for feature, cut, left, right, value in trees:
      # All superpixels descend together; those that have reached a leaf stay there.
      node = np.zeros(len(features), np.intp)
      for _ in range(_DEPTH):
        lower = features[rows, feature[node]] <= cut[node]
        node = np.where(lower, left[node], right[node])
      total += value[node]
    return total / len(self.feature)

  def save(self, path: Path) -> None:
    """Writes the forest to an `.npz` file, atomically."""
    save_arrays(path, **dataclasses.asdict(self))


def load_forest(path: Path) -> RandomForest:
  """Reads a forest that `RandomForest.save` wrote.

  Raises:
    UserError: the file is missing or damaged, or its arrays are no forest.
  """
  arrays = load_arrays(path, [field.name for field in dataclasses.fields(RandomForest)], WAY_OUT)
  if fault := _find_fault(arrays):
    raise refuse_arrays(path, fault, WAY_OUT)
  # The others have a row for each tree.
  threshold = float(arrays.pop("threshold"))
  return dataclasses.replace(_of_arrays(arrays), threshold=threshold)


def _find_fault(arrays: Mapping[str, np.ndarray]) -> str:
  """Returns why arrays are no forest; '' if they are one."""
  trees = {name: arrays[name] for name in _KINDS}
  shapes = {array.shape for array in trees.values()}
  if len(shapes) > 1 or len(next(iter(shapes))) != 2 or not trees["value"].size:
    told = ", ".join(f"{name} {array.shape}" for name, array in trees.items())
    return f"not equal shapes [trees, nodes]: {told}"
  for name, array in arrays.items():
    wanted = np.dtype(_KINDS.get(name, np.float64))
    if array.dtype.kind != wanted.kind:
      return f"{name} is {array.dtype}, not {wanted}"
  nodes = trees["value"].shape[1]
  # NumPy would take a negative index for one from the end, and find a wrong node.
  ends = {"feature": NUM_FEATURES, "left": nodes, "right": nodes}
  for name, end in ends.items():
    if arrays[name].min() < 0 or arrays[name].max() >= end:
      return f"{name} has values beyond 0 .. {end - 1}"
  threshold = arrays["threshold"]
  fractions = (trees["value"], threshold)
  if threshold.shape != () or not all(((f >= 0) & (f <= 1)).all() for f in fractions):
    return "value or threshold is no fraction"
  return "" if np.isfinite(trees["cut"]).all() else "a cut is not finite"


def grow_forest(features: np.ndarray, positive: np.ndarray, seed: int) -> RandomForest:
  """Grows 50 trees of depth 15, balanced between the classes.

  Args:
    features: [S, F] float32.
    positive: whether a superpixel is foreground, bool [S].
    seed: seed of the forest; equal seeds grow equal forests.

  Raises:
    UserError: all superpixels are of one class, or scikit-learn is not installed.
  """
  if positive.all() or not positive.any():
    raise UserError(
      f"none or all of {len(positive)} superpixels are foreground, so a forest has nothing to "
      "learn; train the stages longer, or make config.stages.superpixel_mm smaller"
    )
  # Imported here, since only training needs scikit-learn.
  grown = require_extra("sklearn.ensemble").RandomForestClassifier(
    n_estimators=_TREES,
    max_depth=_DEPTH,
    class_weight="balanced",
    random_state=seed,
    n_jobs=-1,
  )
  grown.fit(features, positive)
  trees = [tree.tree_ for tree in grown.estimators_]
  nodes = max(tree.node_count for tree in trees)
  arrays = {name: np.zeros((_TREES, nodes), kind) for name, kind in _KINDS.items()}
  for index, tree in enumerate(trees):
    here, own = slice(0, tree.node_count), np.arange(tree.node_count)
    # Smaller trees leave the rest of their rows zero, which no superpixel reaches.
    # scikit-learn has negative numbers for the children and the feature of a leaf.
    leaf = tree.children_left < 0
    share = tree.value[:, 0, :]
    arrays["feature"][index, here] = np.where(leaf, 0, tree.feature)
    arrays["cut"][index, here] = tree.threshold
    arrays["left"][index, here] = np.where(leaf, own, tree.children_left)
    arrays["right"][index, here] = np.where(leaf, own, tree.children_right)
    # scikit-learn keeps counts or fractions, depending on its version.
    arrays["value"][index, here] = share[:, 1] / share.sum(-1)
  return _of_arrays(arrays)


def _of_arrays(arrays: Mapping[str, np.ndarray]) -> RandomForest:
  feature, cut, left, right, value = (arrays[name] for name in _KINDS)
  return RandomForest(feature, cut, left, right, value)


# The arrays of a forest without its threshold, in the order of its fields.
_KINDS = {
  "feature": np.int16,
  "cut": np.float64,
  "left": np.int32,
  "right": np.int32,
  "value": np.float64,
}
