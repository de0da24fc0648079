"""Inspects scans and labels before any training, and reports what it finds."""

from pathlib import Path

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.inspection import check_report
from attn_unet_jax.inspection.collection import inspect_all, mark_duplicates
from attn_unet_jax.inspection.inspected_case import InspectedCase
from attn_unet_jax.inspection.sources import InspectionInput, list_cases_at, list_records
from attn_unet_jax.labels import LabelMapping, parse_mapping
from attn_unet_jax.runtime.console import print_line, show_progress
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable
from attn_unet_jax.volumes.finding import Finding


def check_data(
  data: DataOptions,
  source: Path | None,
  label_files: Path | None,
  output: Path | None,
  threads: int,
) -> None:
  """Inspects every case, prints what is wrong, and writes a report.

  Args:
    data: the meaning of label values, the patch, and the data set where no path is given.
    source: a scan, a folder of scans, or a training folder; None: the records that `data` names.
    label_files: the label of the scan, or a folder of labels.
    output: folder for check.json and contact sheets; None: nothing is written.
    threads: number of cases that are open at a time.

  Raises:
    UserError: there is an error in the data, or there are no cases.
  """
  if output:
    check_writable(output)  # now, since inspecting a large set takes long
  if source:
    found = list_cases_at(source, label_files, data.acceptance)
  else:
    found = list_records(data.dataset, data.dir)
  mapping = _choose_mapping(data.labels, found)
  results = inspect_all(found.subjects, mapping, data, threads)
  cases = list(show_progress(results, len(found.subjects), "cases"))
  # Duplicates show only when all cases have been read.
  mark_duplicates(cases)
  findings = found.findings + [finding for case in cases for finding in case.findings]
  for line in (*check_report.format_findings(findings), *check_report.format_table(cases)):
    print_line(line)
  number = check_report.count_by_severity(findings)
  print_line(
    f"{_count_noun(len(cases), 'case')}: "
    + ", ".join(_count_noun(n, name) for name, n in number.items())
  )
  if output:
    what = str(source or f"{data.dataset} in {data.dir}")
    about = {"input": what, "labels": str(mapping), "count": number}
    check_report.write_report(output, about, found.findings, cases, mapping.classes)
    print_line(f"figures of every case: {output}/check.json, contact sheets beside it")
  # Raised last, after the report, so that the exit status tells scripts of the errors.
  if number["error"]:
    raise UserError(_summarise_errors(found, cases))


def _summarise_errors(source: InspectionInput, cases: list[InspectedCase]) -> str:
  """Says how many errors there are, and where."""
  of_files = check_report.count_by_severity(source.findings)["error"]
  in_cases = [check_report.count_by_severity(case.findings)["error"] for case in cases]
  bad = sum(map(bool, in_cases))
  where = [f"{sum(in_cases)} in {bad} of {_count_noun(len(cases), 'case')}"] if bad else []
  where += [f"{of_files} in the list of files"] if of_files else []
  total = _count_noun(of_files + sum(in_cases), "error")
  return f"{total} ({', '.join(where)}), named above; correct them before training"


def _count_noun(number: int, what: str) -> str:
  return f"{number} {what}{'s'[: number != 1]}"


def _choose_mapping(text: str, source: InspectionInput) -> LabelMapping:
  """Returns the configured mapping; if it does not fit the data's names, one class per name."""
  try:
    return parse_mapping(text, source.label_names)
  except UserError as error:
    # 0 is the background.
    named = {name: value for name, value in (source.label_names or {}).items() if value}
    if not named:
      raise
    # The mapping is wrong, but the scans and labels can still be inspected in the same go.
    source.findings.append(Finding("error", "label_names", str(error)))
    # Values that nothing names are still told, and the rest is not background.
    values = tuple(frozenset({value}) for value in named.values())
    return LabelMapping(tuple(named), values, frozenset({0}), rest_is_background=False)
