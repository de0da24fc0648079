"""A package of an extra that is missing or broken is named, with the way to install it."""

import pytest

from attn_unet_jax.runtime import extras
from attn_unet_jax.runtime.errors import UserError


@pytest.mark.parametrize(
  ("fault", "said"),
  [
    (ModuleNotFoundError("No module named 'onnx'"), r"is not installed \(No module named 'onnx'\)"),
    (ImportError("libtbb.so:\nno such file"), r"cannot be imported \(libtbb.so: no such file\)"),
  ],
)
def test_what_cannot_be_imported_is_named(monkeypatch, fault, said):
  def fail(_):
    raise fault

  monkeypatch.setattr(extras.importlib, "import_module", fail)
  expected = rf"^--flag needs onnx, which {said}: from a clone, pip install -e '\.\[cpu\]'$"
  with pytest.raises(UserError, match=expected):
    extras.import_extra("onnx.helper", "cpu", "--flag")
