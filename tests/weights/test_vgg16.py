import numpy as np

from attn_unet_jax.weights.vgg16 import insert_vgg16_trunk, trunk_names


def test_convolutions_have_torchvisions_numbers():
  """Its configuration D: two, two, three, three, three, a pooling after each."""
  numbers = [int(name.removeprefix("features.")) for name in trunk_names().values()]
  assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
  assert trunk_names()["stage5/conv3"] == "features.28"


def test_a_kernels_axes_are_turned_and_the_rest_stays():
  """PyTorch's [out, in, A, B] as [A, B, in, out], in every view."""
  kernel, bias = np.random.default_rng(0).normal(size=(5, 2, 3, 4)), np.arange(5.0)
  state_dict = {"features.2.weight": kernel, "features.2.bias": bias}
  convolution = {"kernel": np.zeros((3, 4, 2, 5)), "bias": np.zeros(5)}
  view = {"stage1": {"conv2": convolution}, "fuse": {"bias": np.ones(1)}}
  found = insert_vgg16_trunk(state_dict, {"axial": view, "sagittal": view})
  assert found["axial"]["fuse"]["bias"] == 1
  for own in found.values():
    np.testing.assert_array_equal(own["stage1"]["conv2"]["bias"], bias)
    for a, b, i, o in np.ndindex(3, 4, 2, 5):
      assert own["stage1"]["conv2"]["kernel"][a, b, i, o] == np.float32(kernel[o, i, a, b])
