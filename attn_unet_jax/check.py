"""Looks at scans and labels before any training: what is wrong, how wrong, and what to do.

  python -m attn_unet_jax.check --input=DATA [--labels=PATH] [--output=DIR]
  python -m attn_unet_jax.check --dataset=pancreas_ct/native --data_dir=data

DATA is a training folder (imagesTr, labelsTr), a NIfTI file, a DICOM folder or .zip, or a folder of
such scans; --labels names the label of a scan, or a folder of labels of the scans' names. A bad
file does not end it: all are named. --config (as for training) says what label values mean and how
large a patch is. --output keeps check.json and contact sheets. Status 2 if there is an error.
"""

from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

import experiments
from attn_unet_jax.config.flags import checked_config
from attn_unet_jax.inspection import check_report
from attn_unet_jax.inspection.collection import inspect_all, mark_duplicates
from attn_unet_jax.inspection.finding import Finding
from attn_unet_jax.inspection.inspected_case import InspectedCase
from attn_unet_jax.inspection.sources import InspectionInput, list_cases_at, list_records
from attn_unet_jax.labels import LabelMapping, parse_mapping
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line, show_progress
from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable

_INPUT = flags.DEFINE_string("input", None, "A scan, a folder of scans, or a training folder.")
_LABELS = flags.DEFINE_string("labels", None, "The label of the scan, or a folder of labels.")
_DATASET = flags.DEFINE_string("dataset", None, "Or: a built data set, NAME/CONFIG.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records of --dataset lie.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for check.json and contact sheets.")
_THREADS = flags.DEFINE_integer(
  "threads", min(count_usable_cores(), 4), "Cases that are open at a time.", lower_bound=1
)
config_flags.DEFINE_config_file(
  "config", str(Path(experiments.__file__).with_name("pancreas.py")), "Experiment file."
)


def main() -> None:
  """The command."""
  logging.set_verbosity(logging.ERROR)  # what readers warn of is found here by itself
  config = checked_config(data=False)
  if _OUTPUT.value:
    check_writable(Path(_OUTPUT.value))
  source = _source()
  mapping = _mapping(config.data.labels, source)
  results = inspect_all(source.subjects, mapping, config, _THREADS.value)
  cases = list(show_progress(results, len(source.subjects), "cases"))
  mark_duplicates(cases)
  findings = source.findings + [finding for case in cases for finding in case.findings]
  for line in (*check_report.format_findings(findings), *check_report.format_table(cases)):
    print_line(line)
  number = check_report.count_by_severity(findings)
  print_line(
    f"{_number(len(cases), 'case')}: " + ", ".join(_number(n, name) for name, n in number.items())
  )
  if _OUTPUT.value:
    what = _INPUT.value or f"{_DATASET.value} in {_DATA_DIR.value}"
    about = {"input": what, "labels": str(mapping), "count": number}
    check_report.write_report(Path(_OUTPUT.value), about, source.findings, cases)
    print_line(f"figures of every case: {_OUTPUT.value}/check.json, contact sheets beside it")
  if number["error"]:
    raise UserError(_summary(source, cases))


def _summary(source: InspectionInput, cases: list[InspectedCase]) -> str:
  """How many errors there are, and where."""
  of_files = check_report.count_by_severity(source.findings)["error"]
  in_cases = [check_report.count_by_severity(case.findings)["error"] for case in cases]
  bad = sum(map(bool, in_cases))
  where = [f"{sum(in_cases)} in {bad} of {_number(len(cases), 'case')}"] if bad else []
  where += [f"{of_files} in which files there are"] if of_files else []
  total = _number(of_files + sum(in_cases), "error")
  return f"{total} ({', '.join(where)}), named above; correct them before training"


def _number(number: int, what: str) -> str:
  return f"{number} {what}{'s'[: number != 1]}"


def _source() -> InspectionInput:
  if bool(_INPUT.value) == bool(_DATASET.value):
    raise UserError("give --input=PATH, or --dataset=NAME/CONFIG with --data_dir=DIR")
  if _DATASET.value:
    return list_records(_DATASET.value, _DATA_DIR.value)
  return list_cases_at(Path(_INPUT.value or ""), Path(_LABELS.value) if _LABELS.value else None)


def _mapping(text: str, source: InspectionInput) -> LabelMapping:
  """The configured meaning of label values; where it does not fit the data's names, theirs."""
  try:
    return parse_mapping(text, source.label_names)
  except UserError as error:
    named = {name: value for name, value in (source.label_names or {}).items() if value}
    if not named:
      raise
    source.findings.append(Finding("error", "label_names", str(error)))
    values = tuple(frozenset({value}) for value in named.values())
    return LabelMapping(tuple(named), values, frozenset({0}), rest_is_background=False)


if __name__ == "__main__":
  process.run_command(main)
