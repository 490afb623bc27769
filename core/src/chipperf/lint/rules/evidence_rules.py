"""Rules on the evidence for the numbers: precision, versions and age."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from chipperf.documents import wording
from chipperf.documents.markdown import read_text
from chipperf.errors import DocumentError
from chipperf.languages import pattern, phrase
from chipperf.lint.configs import NOT_EVALUATED
from chipperf.lint.rule import Edit, LintedDocument, NotChecked, Problem, rule
from chipperf.precisions import PRECISIONS
from chipperf.records.schema import METRICS_VERSION, Missing

_LEGEND: Final = re.compile(pattern(phrase("one of %(precisions)s"), precisions=r"\s*(.+)"), re.IGNORECASE)
_REDUCING: Final = re.compile(r"tf32|(?:gemm|conv|matmul)\w*dtype|(?:matmul|fp32)_precision", re.IGNORECASE)
_PRECISION: Final = re.compile(r"\b(?:amp|(?:tf|bf|fp|int)\d+)\b")
_PACKAGE: Final = re.compile(r"(?P<name>[A-Za-z][\w-]*)(?:\s*(?:==\s*(?P<version>[\w.+-]+)|[<>!~]=?.*))?(?=$|[\s;#])")
_FRAMEWORKS: Final = ("pytorch", "torch", "paddle", "paddlepaddle")
"""What comes with the container."""

_LEVEL: Final = re.compile(r"[\s,，(（]*(?:level\s*=\s*)?[\"'“”]?o[0-3][\"'“”]?[)）]?$")
_OFF: Final = ("", "0", "false", "off", "no", "float32", "fp32", "highest", "ieee")
_CASE_KEY: Final = re.compile(
    r"[\"'](?P<case>[\w.-]+):(?P<framework>[a-z]+)(?:_v?(?P<version>\d+\.\d+))?[\w.-]*:(?P<card>[\w.-]+):\d+:\d+:\d+[\"']",
    re.IGNORECASE,
)


@rule(
    "L14",
    "precision",
    severity="warning",
    why="fp32 that is computed in TF32 or int16 is faster and is not fp32",
    fix="list the precision in the legend, and state the arithmetic in effect",
)
def precisions_are_declared(subject: LintedDocument) -> Iterator[Problem]:
    """Every row's precision is in the legend, and a setting that changes the arithmetic is stated."""
    general = subject.document.general.get("precision")
    if general and (legend := _LEGEND.search(general.remark.text)):
        listed = legend[legend.lastindex or 0]
        allowed = {part.strip().casefold() for part in re.split(r"[/、,，]", listed)}
        for row in subject.rows:
            # Behind the precision may stand a level: fp16, level="O2".
            named = _PRECISION.findall(row.precision) or [row.precision]
            lacking = [each for each in named if each not in allowed]
            if lacking and re.search(r"\w", row.precision):
                remark = general.remark
                longer = "/".join((remark.text, *lacking))
                edits = (Edit(remark.place, remark.text, longer),) if {*allowed, *lacking} <= set(PRECISIONS) else ()
                message = f"{row.precision!r} is not in the legend {listed!r}"
                yield Problem(row.cells["precision"].place, message, edits=edits)
    for row in subject.rows:
        # Behind the precision may stand a level, and what is of no known precision is in no legend.
        named = _PRECISION.findall(row.precision)
        rest = _LEVEL.sub("", _PRECISION.sub("", row.precision))
        if named and (rest.strip(" +") or "/" in row.precision):
            yield Problem(row.cells["precision"].place, f"{row.precision!r} is not the name of one precision")
    said = general.value.text.casefold() if general else ""
    for row in subject.rows:
        if said in PRECISIONS and said not in (_PRECISION.findall(row.precision) or [said]):
            yield Problem(row.cells["precision"].place, f"{row.precision!r}, {said!r} in the general table")
    yield from _reduced(subject)


def _reduced(subject: LintedDocument) -> Iterator[Problem]:
    """Yield the settings of an fp32 row's run that compute in less than fp32."""
    rows = [row for row in subject.rows if row.precision == "fp32"]
    if not rows or subject.configs is None:
        return
    configs = {config.path: config for row in rows for config in subject.configs_of(row)}.values()
    text = "\n".join(subject.document.markdown.lines)
    own = [each for config in configs for each in config.switches]
    unread = list(subject.configs.unread_variables)
    for name, assigned in (*subject.configs.variables.items(), *own):
        if not _REDUCING.search(name) or name in text or str(assigned.value).casefold() in _OFF:
            continue
        where = f"{assigned.path.name}:{assigned.line}"
        if assigned.value is NOT_EVALUATED:
            unread.append(where)
            continue
        yield Problem(rows[0].cells["precision"].place, f"fp32, but {where} sets {name}={assigned.value}")
    if unread:
        raise NotChecked(f"{unread[0]} cannot be read")


@rule(
    "L19",
    "framework-version",
    why="the framework's version changes speed and numerics",
    fix="write the version with which the case ran",
    evidence="a key for the vendor's cards in FlagPerf's test_conf.py, or records",
)
def framework_is_that_of_the_case(subject: LintedDocument) -> Iterator[Problem]:
    """The framework's version is the one in the case's key or in the records."""
    facts = [fact for key in ("framework", "dependencies", "container") if (fact := subject.document.facts.get(key))]
    recorded = [record.environment.torch for record in subject.records]
    framework, where = "torch", "the records"
    expected = {".".join(version.split(".")[:2]) for version in recorded if not isinstance(version, Missing)}
    if not expected:
        framework, expected = _case_key_versions(subject)
        where = "the case's key"
    version = re.compile(rf"(?:py)?{framework}[-_ +:v]*(\d+\.\d+)", re.IGNORECASE)
    stated = next(((fact, match) for fact in facts if (match := version.search(fact.text))), None)
    if stated is None:
        raise NotChecked(f"the environment names no version of {framework}")
    fact, match = stated
    if match[1] not in expected:
        yield Problem(fact.place, f"{match[0]!r} in the environment, {' or '.join(sorted(expected))} in {where}")


def _case_key_versions(subject: LintedDocument) -> tuple[str, set[str]]:
    """Return the framework and its versions in the keys of the case for the vendor's cards."""
    directory = subject.path.absolute().parent
    case, _, framework = directory.name.casefold().partition("-")
    try:
        text = read_text(directory.parent.parent / "run_benchmarks" / "config" / "test_conf.py")
    except DocumentError:
        raise NotChecked("neither a record nor a test_conf.py tells the version") from None
    keys = [
        key
        for key in _CASE_KEY.finditer(text)
        if (key["case"].casefold(), key["framework"].casefold()) == (case, framework)
        and any(name.vendor == subject.vendor for name in subject.names.find(key["card"]))
    ]
    if not any(key["version"] for key in keys):
        raise NotChecked("no key in test_conf.py for the vendor's cards tells the version")
    return framework.removeprefix("py"), {key["version"] for key in keys if key["version"]}


@rule(
    "L33",
    "dependencies",
    severity="warning",
    why="a run with other packages is another run",
    fix="write the packages of requirements.txt with their versions, or refer to it",
    evidence="a requirements.txt among the configurations",
)
def dependencies_are_those_installed(subject: LintedDocument) -> Iterator[Problem]:
    """The dependencies are the packages in ``requirements.txt`` beside the configurations."""
    try:
        text = read_text(subject.case_directory / "config" / "requirements.txt")
    except DocumentError:
        raise NotChecked("no requirements.txt among the configurations") from None
    fact = subject.document.facts.get("dependencies")
    lines = [line for line in map(str.strip, text.split("\n")) if line and not line.startswith(("#", "-"))]
    if fact is None or not lines:
        return
    if fact.text and wording.says_nothing(fact.text):
        names = ", ".join(line.rpartition("/")[2] for line in lines)
        yield Problem(fact.place, f"dependencies {fact.text!r}, and requirements.txt installs {names}")
        return
    installed = {match["name"].casefold(): match["version"] for line in lines if (match := _PACKAGE.match(line))}
    for part in re.split(r"\s*[,，、;；]\s*", fact.text):
        match = _PACKAGE.fullmatch(part)
        if match is None or match["name"].casefold() in _FRAMEWORKS:
            continue
        name, version = match["name"].casefold(), match["version"]
        if name not in installed:
            yield Problem(fact.place, f"dependency {part!r} is not in requirements.txt")
        elif version and installed[name] and version != installed[name]:
            yield Problem(fact.place, f"dependency {part!r}; requirements.txt has {name}=={installed[name]}")


@rule(
    "L28",
    "stale-evidence",
    severity="warning",
    why="values from before a change of a definition mean something else",
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
