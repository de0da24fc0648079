"""The error that ends a request."""

from attn_unet_jax.runtime.errors import UserError


class RequestError(UserError):
  """An error of a request: one line, as of every `UserError`, and the status of the response."""

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status
