from attn_unet_jax.models.vgg16 import trunk_names


def test_convolutions_have_torchvisions_numbers():
  """Its configuration D: two, two, three, three, three, a pooling after each."""
  numbers = [int(name.removeprefix("features.")) for name in trunk_names().values()]
  assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
  assert trunk_names()["stage5/conv3"] == "features.28"
