"""The doubts about input that a user may accept: `--accept=hounsfield,rescale`.

What cannot be trusted is refused. Some of it only the user can judge, and a user who knows better
names the reason. Everything else stays refused.
"""

from collections.abc import Mapping

from attn_unet_jax.runtime.errors import UserError

REASONS: Mapping[str, str] = {
  "hounsfield": "values that are no Hounsfield units",
  "geometry": "sform and qform that disagree, or voxels of a size that no CT has",
  "pose": "an anatomy that contradicts the header's axes",
  "rescale": "DICOM that does not state that its values are Hounsfield units",
}
ACCEPT_HELP = "Doubts about scans to accept, separated by commas: " + "; ".join(
  f"{name}: {meaning}" for name, meaning in REASONS.items()
)

Acceptance = frozenset[str]  # of names in REASONS
NOTHING: Acceptance = frozenset()


def parse_acceptance(text: str, flag: str = "--accept") -> Acceptance:
  """Reads the value of the flag, such as `hounsfield,rescale`.

  Args:
    text: names of `REASONS`, separated by commas; '' accepts nothing.
    flag: its name, for the message.

  Raises:
    UserError: a name is unknown.
  """
  names = [name.strip() for name in text.split(",") if name.strip()]
  if unknown := sorted(set(names) - REASONS.keys()):
    raise UserError(f"{flag}={text}: {unknown[0]!r} is none of {', '.join(REASONS)}")
  return frozenset(names)


def refuse_unless_accepted(reason: str, problem: str, accept: Acceptance) -> str:
  """Refuses a doubtful input, unless the user accepts the reason.

  Args:
    reason: a name of `REASONS`.
    problem: what is wrong, in one line with the file, the value and the way out.
    accept: what the user accepts.

  Returns:
    the line for the screen and the record, which says what was accepted.

  Raises:
    UserError: it is not accepted; the message names the flag.
  """
  if reason not in accept:
    raise UserError(f"{problem}; if it is right as it is, go on with --accept={reason}")
  return f"accepted ({reason}): {problem}"
