"""K: checks of what a case says: hyperparameters, presets, texts and data, without training."""

from __future__ import annotations

import hashlib
import math
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipperf.cases.base import Role
from chipperf.cases.config import require_settable, resolve
from chipperf.cases.registry import find_case
from chipperf.contract.check import NotApplicable, check, fail, require
from chipperf.contract.sample_records import RANKS, full_record
from chipperf.documents import wording
from chipperf.documents.case_document import read_document
from chipperf.errors import ConfigError, PerfError
from chipperf.languages import LANGUAGES, in_language
from chipperf.report.render import render_report

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from chipperf.contract.plugin_under_test import PluginUnderTest
    from chipperf.data.dataset_check import CheckReport

_HEAVY: Final = ("torch", "torchvision", "numpy", "PIL", "scipy")
_LOCKED: Final = ("model", "dataset", "target", "epochs", "evaluate_every_epochs")
_FEW: Final = 12
"""Training samples of the data that are generated for these checks."""


@check("K1", level=0, needs="entry", fault="listing cases takes seconds, and fails where torch is not installed")
def case_is_listed_without_torch(subject: PluginUnderTest) -> None:
    """The case and its presets are read without torch, NumPy or another library of training."""
    case = find_case(subject.settings.case)
    for preset in case.presets:
        resolve(case, preset=preset)
    loaded = [name for name in _HEAVY if name in sys.modules]
    require(not loaded, f"{', '.join(loaded)} is imported: import it inside the functions of the case that need it")


@check("K2", level=0, needs="entry", fault="a run changes what defines the benchmark, or a setting cannot be given")
def hyperparameters_have_roles(subject: PluginUnderTest) -> None:
    """Every hyperparameter has a role: only presets change locked ones, and all others can be set as text."""
    case = find_case(subject.settings.case)
    base = case.base.model_dump()
    try:
        roles = {key: case.base.role(key) for key in base}
    except TypeError as error:
        fail(f"{error}: annotate it with a Role")
    for key, role in roles.items():
        is_settable = True
        try:
            require_settable(case, key, "command line", "the command line")
        except ConfigError:
            is_settable = False
        require(is_settable == (role is not Role.LOCKED), f"{key} is {role}, but can be set: {is_settable}")
        require(role is Role.LOCKED or key not in _LOCKED, f"{key} is {role}; it defines the benchmark: lock it")
        if is_settable:
            given = resolve(case, command_line={key: str(base[key])}).values.model_dump()[key]
            require(given == base[key], f"--set {key}={base[key]} sets {given!r} instead of {base[key]!r}")


@check("K3", level=0, needs="entry", fault="a preset is missing, or has values that the case cannot have")
def presets_resolve(subject: PluginUnderTest) -> None:
    """The preset ``full`` is the base, ``tiny`` is there for the contract, and each has values that fit."""
    case = find_case(subject.settings.case)
    require("tiny" in case.presets, "there is no preset 'tiny', which the contract trains")
    require(not case.presets.get("full", {"?": 0}), "the preset 'full' must be there and be empty: it is the base")
    for preset in case.presets:
        try:
            values = resolve(case, preset=preset).values
        except ConfigError as error:
            fail(f"preset {preset!r} does not resolve: {error.message}")
        require(values.samples_per_item >= 1, f"preset {preset!r}: samples_per_item is {values.samples_per_item}")


@check("K4", level=0, fault="a report on the case lacks a text, or its result cannot be read back")
def report_says_what_the_case_is(subject: PluginUnderTest) -> None:
    """In every language, a report on the case has its texts, and its result can be read back unchanged."""
    case = find_case(subject.settings.case)
    profile = case.report
    for name in ("task", "quality_legend", "sample_noun"):
        title = getattr(profile, name)
        require(
            title.en and in_language(title, "zh") != title.en,
            f"report.{name} has no Chinese text: give Title(zh=…, en={title.en!r})",
        )
    record = full_record(subject.session, case, RANKS[0], resolve(case))
    value = case.base.target
    for language in LANGUAGES:
        try:
            page = render_report([record], language=language)
        except PerfError as error:
            fail(f"the {language} report cannot be rendered: {error.message}")
        for what in (profile.model_title, in_language(profile.task, language), profile.quality_column):
            require(what in page, f"the {language} report lacks {what!r}")
        (row,) = read_document(page, "report").rows
        require(
            row.quality is not None and math.isclose(row.quality, value, rel_tol=1e-3),
            f"the {language} report on a result of {value} is read as {row.quality} in the column "
            f"{profile.quality_column!r}: use a common name of a metric, such as acc, mAP, R2, loss or ppl",
        )
        kind = wording.quality_kind(profile.quality_column)
        require(
            wording.lower_is_better(profile.quality_column) == case.lower_is_better,
            f"lower_is_better is {case.lower_is_better}, but readers assume the opposite of {profile.quality_column!r} "
            f"({kind})",
        )


@check("K5", level=0, fault="faults of data stay unseen until training, or the check raises or changes what it reads")
def data_are_checked(subject: PluginUnderTest) -> None:
    """The data check accepts generated data, changes nothing, and lists the faults of other data without raising."""
    case = find_case(subject.settings.case)
    require(case.data.check is not None, "the case has no check of its data")
    data = few_samples(case, subject.workspace)
    before = _digest(data)
    seen: list[tuple[int, int]] = []
    for full in (False, True):
        found = _report_on(case, data, full=full, seen=seen)
        require(found.ok, f"generated data have faults: {found.findings}")
        require(
            found.train_samples > 0 and found.eval_samples > 0,
            f"the check counts {found.train_samples} training and {found.eval_samples} evaluation samples",
        )
    require(seen and seen[-1][0] == seen[-1][1] > 0, f"the check reports as its last progress {seen[-1:]}")
    require(_digest(data) == before, f"the check changes the directory {data}")
    other = _report_on(case, data, expected=True)
    require(not other.ok, f"data of other sizes are accepted as those of {case.data.reference.name}")
    with tempfile.TemporaryDirectory() as empty:
        require(not _report_on(case, Path(empty)).ok, "an empty directory passes the check")
        require(not _report_on(case, Path(empty) / "none").ok, "a directory that does not exist passes the check")


@check("K6", level=0, fault="two machines generate different data, so that their results cannot be compared")
def generated_data_are_alike(subject: PluginUnderTest) -> None:
    """Generating twice gives the same few samples, and their manifest says that they are generated."""
    from chipperf.data.dataset_identity import read_manifest

    case = find_case(subject.settings.case)
    data = few_samples(case, subject.workspace)
    require(read_manifest(data) is not None, f"{data} has no manifest: generate it as a GeneratedDataset")
    with tempfile.TemporaryDirectory() as elsewhere:
        again = few_samples(case, Path(elsewhere))
        require(_digest(again) == _digest(data), "the second time other files are generated")


def few_samples(case: Case, root: Path, samples: int = _FEW) -> Path:
    """Return generated data with at least so many training samples; without any the check does not apply."""
    if case.data.ensure_few_samples is None:
        raise NotApplicable("the case generates no data: give it ensure_few_samples")
    return case.data.ensure_few_samples(samples, "tiny", root)


def _report_on(
    case: Case, root: Path, *, full: bool = False, expected: bool = False, seen: list[tuple[int, int]] | None = None
) -> CheckReport:
    if case.data.check is None:
        raise NotApplicable("the case has no check of its data, see K5")
    progress = partial(_note, [] if seen is None else seen)
    try:
        return case.data.check(root, case.data.reference if expected else None, full=full, progress=progress)
    except PerfError as error:
        fail(f"the check of {root} raises an error instead of reporting it: {error.message}")


def _note(seen: list[tuple[int, int]], done: int, total: int) -> None:
    seen.append((done, total))


def _digest(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
