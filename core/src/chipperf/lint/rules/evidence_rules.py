"""Rules on the evidence for the numbers: precision, versions and age."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chipperf.documents.markdown import read_text
from chipperf.errors import DocumentError
from chipperf.languages import pattern, phrase
from chipperf.lint.rule import Edit, LintedDocument, NotChecked, Problem, rule
from chipperf.precisions import PRECISIONS
from chipperf.records.schema import METRICS_VERSION, Missing

_LEGEND: Final = re.compile(pattern(phrase("one of %(precisions)s"), precisions=r"\s*(.+)"), re.IGNORECASE)
_REDUCING: Final = re.compile(r"tf32|(?:gemm|conv|matmul)\w*dtype", re.IGNORECASE)
_OFF: Final = ("", "0", "false", "off", "no", "float32", "fp32")
_CASE_KEY: Final = re.compile(r"[\"']([\w.-]+):[a-z]+\w*?_(\d+\.\d+)[\w.]*:([\w.-]+):\d+:\d+:\d+[\"']", re.IGNORECASE)
_VERSION: Final = re.compile(r"(?:py)?torch[-_ +:v]*(\d+\.\d+)", re.IGNORECASE)


@rule(
    "L14",
    "precision",
    severity="warning",
    why="fp32 that is computed in TF32 or int16 is faster and is not fp32",
    fix="list the precision in the legend, and say which arithmetic is in effect",
)
def precisions_are_declared(subject: LintedDocument) -> Iterator[Problem]:
    """Every row's precision is in the legend, and a setting that changes the arithmetic is stated."""
    general = subject.document.general.get("precision")
    if general and (legend := _LEGEND.search(general.remark.text)):
        listed = legend[legend.lastindex or 0]
        allowed = {part.strip().casefold() for part in re.split(r"[/、,，]", listed)}
        for row in subject.rows:
            if row.precision and row.precision not in allowed:
                named = {*allowed, row.precision} <= set(PRECISIONS)
                remark = general.remark
                edits = (Edit(remark.place, remark.text, f"{remark.text}/{row.precision}"),) if named else ()
                message = f"{row.precision!r} is not in the legend {listed!r}"
                yield Problem(row.cells["precision"].place, message, edits=edits)
    full = next((row for row in subject.rows if row.precision == "fp32"), None)
    if full is None or subject.configs is None:
        return
    text = "\n".join(subject.document.markdown.lines)
    for name, assigned in subject.configs.variables.items():
        if _REDUCING.search(name) and str(assigned.value).casefold() not in _OFF and name not in text:
            yield Problem(
                full.cells["precision"].place,
                f"fp32, but line {assigned.line} of the environment variables sets {name}={assigned.value}",
            )


@rule(
    "L19",
    "framework-version",
    why="the framework's version changes speed and numerics",
    fix="write the version that ran",
    evidence="FlagPerf's test_conf.py above the report, or records",
)
def framework_is_that_of_the_case(subject: LintedDocument) -> Iterator[Problem]:
    """The framework's version is that of the case's key or of the records."""
    facts = [fact for key in ("framework", "dependencies", "container") if (fact := subject.document.facts.get(key))]
    stated = next(((fact, match) for fact in facts if (match := _VERSION.search(fact.text))), None)
    recorded = [record.environment.torch for record in subject.records]
    expected = {".".join(version.split(".")[:2]) for version in recorded if not isinstance(version, Missing)}
    expected = expected or _case_key_versions(subject)
    if not expected:
        raise NotChecked("neither a record nor a test_conf.py tells the version")
    if stated is None:
        raise NotChecked("the environment names no version of torch")
    fact, match = stated
    if match[1] not in expected:
        yield Problem(fact.place, f"{match[0]!r} in the environment, {' or '.join(sorted(expected))} in the case's key")


def _case_key_versions(subject: LintedDocument) -> set[str]:
    """Return the versions in the keys of the case, those of the vendor's cards if there are any."""
    above = subject.path.absolute().parents
    if subject.case_name is None or len(above) < 3:
        return set()
    try:
        text = read_text(above[2] / "run_benchmarks" / "config" / "test_conf.py")
    except DocumentError:
        return set()
    keys = [match for match in _CASE_KEY.finditer(text) if match[1].casefold() == subject.case_name]
    own = [key for key in keys if any(name.vendor == subject.vendor for name in subject.names.find(key[3]))]
    return {key[2] for key in own or keys}


@rule(
    "L28",
    "stale-evidence",
    severity="warning",
    why="values of before a change of the measuring code mean something else",
    fix="run again with the installed version, and render the report from the new records",
    evidence="records",
)
def evidence_is_of_this_version(subject: LintedDocument) -> Iterator[Problem]:
    """The records behind the report follow the metric definitions of this version."""
    if not subject.records:
        raise NotChecked("no records: --against RUN")
    for record in subject.records:
        definitions, own = record.metrics_definition, subject.document.metrics_definition
        if record.metrics_version < METRICS_VERSION:
            yield Problem(
                subject.start,
                f"run {record.run_id} follows metric definitions {record.metrics_version}, these are "
                f"{METRICS_VERSION} now",
            )
        elif definitions != "chipperf" and own == "chipperf":
            yield Problem(
                subject.start,
                f"run {record.run_id} follows the definitions of {definitions}, the report those of chipperf",
            )
