"""The rules of lint: what a rule is given, what it says, and how rules are declared, listed and selected."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from chipperf.cases.recorded_settings import check_with_case
from chipperf.catalog import Catalog, require_id, summary_of
from chipperf.documents import cells, wording
from chipperf.documents.markdown import Located, Place
from chipperf.documents.topology import parse_config_name
from chipperf.errors import DOCUMENTATION, UsageError
from chipperf.lint.configs import base_of_case, base_of_tree, find_benchmark, names_read
from chipperf.lint.declarations import says_schedule
from chipperf.records.columns import columns_of
from chipperf.records.plausibility import check_scaling

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.documents.card_names import CardNames
    from chipperf.documents.case_document import CaseDocument, DocumentRow
    from chipperf.lint.configs import BaseValues, Config, ConfigDirectory, Target
    from chipperf.records.consistency import Check
    from chipperf.records.schema import Record

Severity = Literal["error", "warning"]

_SPEEDS: Final = tuple(each.key for each in columns_of("report") if each.kind in ("time", "throughput"))
"""Columns whose equal numbers in two reports are not a coincidence."""

_MODEL_SIZE: Final = re.compile(r"\d+(?:\.\d+)?b(?![a-z])")
_MIN_MAJORITY: Final = 2


PAGES: Final = f"{DOCUMENTATION}/lint"
"""Address of the directory with a page for each rule."""


class NotChecked(Exception):
    """The evidence that a rule needs is missing. The message names it."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A safe change, which ``--fix`` makes: the text ``old`` at ``place`` becomes ``new``."""

    place: Place
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A place at which a document breaks a rule, and what is wrong. Without a severity it has the rule's."""

    place: Place
    message: str
    severity: Severity | None = None
    edits: tuple[Edit, ...] = ()


@dataclass(kw_only=True, eq=False)
class LintedDocument:
    """A document, its evidence, ``None`` where there is none, and all documents of the same lint."""

    path: Path
    document: CaseDocument
    names: CardNames
    vendor: str | None
    case_name: str | None
    case: Case | None
    configs: ConfigDirectory | None
    records: tuple[Record, ...]
    corpus: Corpus

    @property
    def rows(self) -> Sequence[DocumentRow]:
        """Rows of the performance table."""
        return self.document.rows

    @property
    def start(self) -> Place:
        """Place for faults of the whole document: the performance table, or the beginning."""
        header = self.document.headers.get("configuration")
        return header.place if header else Place(1, 1)

    def need_vendor(self) -> str:
        """Return the vendor, or raise :class:`NotChecked`."""
        if self.vendor is None:
            raise NotChecked("the report does not name its vendor: --vendor NAME")
        return self.vendor

    def need_case(self) -> Case:
        """Return the case, or raise :class:`NotChecked`."""
        if self.case is None:
            lacking = (
                f"case {self.case_name!r} is not installed" if self.case_name else "the report does not name its case"
            )
            raise NotChecked(lacking)
        return self.case

    @property
    def case_directory(self) -> Path:
        """The directory of the vendor's configurations and of the document, unless they are apart."""
        beside = (self.configs.path if self.configs else self.path).absolute()
        return beside.parent if beside.is_dir() or beside == self.path.absolute() else beside.parent.parent

    @cached_property
    def benchmark(self) -> Path | None:
        """FlagPerf's directory of the case's trainers, which is beside the vendors' directories; or ``None``."""
        return find_benchmark(self.case_directory)

    @cached_property
    def names_read(self) -> frozenset[str]:
        """Names that the sources of the case's trainers may read; empty if there are no such sources."""
        benchmark = self.benchmark
        read = names_read(benchmark) if benchmark else frozenset()
        if benchmark is None or not read:
            return read
        return read.union(*(names_read(each) for each in (benchmark.parent.parent / "driver", self.case_directory)))

    @cached_property
    def base(self) -> BaseValues | None:
        """Base values of the case: those of the tree, otherwise those of the installed case."""
        tree = base_of_tree(self.benchmark) if self.benchmark else None
        return tree or (base_of_case(self.case) if self.case else None)

    def need_base(self) -> BaseValues:
        """Return the base values, or raise :class:`NotChecked`."""
        if base := self.base:
            return base
        lacking = f"case {self.case_name!r} is not installed" if self.case_name else "the report does not name its case"
        raise NotChecked(f"{lacking}, and no base configuration is in its tree")

    def need_target(self) -> Target:
        """Return the target of the results' metric, or raise :class:`NotChecked`."""
        base, header = self.need_base(), self.document.headers.get("quality")
        if header is None:
            raise NotChecked("there is no column of results")
        found = base.targets_called(header.text.partition("&&")[0])
        if len(found) != 1:
            raise NotChecked(f"{base.origin} has no one target for {header.text!r}")
        return found[0]

    def asked_target(self) -> Target | None:
        """Return the case's target of the results' metric, or ``None`` if it is not known."""
        try:
            self.need_reference_dataset()
            return self.need_target()
        except NotChecked:
            return None

    def goal_of(self, row: DocumentRow) -> float | None:
        """Return the target that a row's result must meet: the case's, otherwise the one beside the result."""
        target = self.asked_target()
        if target is None:
            return row.target
        return target.value / 100 if wording.is_fraction(row.metric) and target.value > 1 else target.value

    def meets_target(self, row: DocumentRow) -> bool | None:
        """Return whether a row's result meets its target; ``None`` if one is not known."""
        value, goal = row.quality, self.goal_of(row)
        if value is None or goal is None:
            return None
        sign = -1 if self.lower_is_better(row.headers.get("quality", "")) else 1
        return value * sign >= goal * sign or math.isclose(value, goal, rel_tol=1e-9)

    def lower_is_better(self, metric: str) -> bool:
        """Return whether the smaller of two results of a metric is the better one: as its name or the case says."""
        case = self.case
        of_case = case is not None and wording.is_same_metric(metric, case.report.quality_column)
        return wording.lower_is_better(metric) or (case is not None and of_case and case.lower_is_better)

    def is_of_case(self, row: DocumentRow) -> bool:
        """Return whether a row is of the case's model; some documents have sections on other sizes of it."""
        sizes = [_MODEL_SIZE.search(text.casefold()) for text in (row.section, self.case_directory.name)]
        return None in sizes or len({size[0] for size in sizes if size}) == 1

    def configs_of(self, row: DocumentRow) -> list[Config]:
        """Return the configuration that a row names, otherwise those for its card and topology."""
        if self.configs is None or row.topology is None or not self.is_of_case(row):
            return []
        if named := row.config_name:
            return [config for config in self.configs.configs if config.path.stem == named]
        return self.configs.of_topology(row.shape, row.card)

    def need_configs(self) -> ConfigDirectory:
        """Return the configurations, or raise :class:`NotChecked`."""
        if self.configs is None:
            raise NotChecked("no configurations beside it: --config DIR")
        return self.configs

    def need_reference_dataset(self) -> None:
        """Raise :class:`NotChecked` if the case is installed and the document is on another dataset."""
        row = self.document.general.get("dataset")
        text = wording.normal(row.value.text) if row else ""
        reference = self.case.data.reference if self.case else None
        if reference and text not in ("", wording.normal(reference.name), wording.normal(reference.title)):
            raise NotChecked("it is not on the dataset the case is defined on")

    def declares_schedule(self, *limits: float) -> bool:
        """Return whether the additional changes or a row's ``fix_hp`` say that a schedule with these limits ran."""
        row = self.document.general.get("changes")
        texts = [row.value.text, row.remark.text] if row else []
        return any(says_schedule(text, limits) for text in [*texts, *(row.known("fix_hp") for row in self.rows)])

    @property
    def quality_kind(self) -> str | None:
        """Kind of the results by the header of their column."""
        header = self.document.headers.get("quality")
        return wording.quality_kind(header.text) if header else None

    def fact_group(self, key: str) -> Hashable:
        """Return the vendor, the accelerator and the fact: of one group, documents should say the same."""
        card = self.document.facts.get("card_title")
        return self.vendor, wording.normal(card.text) if card else "", key

    def card_group(self, row: DocumentRow) -> tuple[str | None, str]:
        """Return the vendor and a row's card, whichever of its names the row or else the environment has."""
        fact = self.document.facts.get("card_title")
        texts = (row.card, fact.text if fact else "")
        named = (mention.card for text in texts for mention in self.names.find(text) if mention.card)
        return self.vendor, next(named, wording.normal(row.card))

    def card_places(self) -> Iterator[tuple[str, Located]]:
        """Yield every text that names the card, each with a description."""
        if fact := self.document.facts.get("card_title"):
            yield "the accelerator", fact
        if short := self.document.general.get("card_short_name"):
            yield "the short name", short.value
        for row in self.rows:
            card = row.topology.card if row.topology else row.label.text
            if row.label.text.startswith(card):
                yield "the row's label", Located(card, row.label.place)
            if (file := row.cells.get("config_file")) and (name := parse_config_name(file.text)):
                yield "the configuration's name", Located(name.card, file.place)

    def statements(self) -> Iterator[tuple[str, str] | tuple[str, str, float]]:
        """Yield field and text of each fact, and case, column and value of each number too long for a coincidence."""
        for key, fact in self.document.facts.items():
            if cells.marker(fact.text) is None and not wording.says_nothing(fact.text):
                yield key, fact.text
        for row, column in product(self.rows, _SPEEDS):
            value = row.number(column)
            if self.case_name and value is not None and value >= 100:
                yield self.case_name, column, value

    def implausible(self, *checks: Check) -> Iterator[Problem]:
        """Yield the contradictions in the records of the document's runs."""
        found = [(record, finding) for record in self.records for finding in check_with_case(record, self.case)]
        if "scaling" in checks:
            found += check_scaling(self.records)
        for record, finding in found:
            if finding.check in checks:
                yield Problem(self.start, f"run {record.run_id}: {finding.text}")


class Corpus:
    """All documents of one lint, and look-up tables for rules that compare documents, made after all were added."""

    def __init__(self) -> None:
        self.subjects: list[LintedDocument] = []
        self._spellings: dict[str, str] = {}

    def spelling(self, text: str) -> str:
        """Return the first of the spellings of a text that differ only in case, spaces and punctuation."""
        return self._spellings.setdefault(wording.normal(text), text)

    @cached_property
    def by_statement(self) -> Mapping[Hashable, list[LintedDocument]]:
        """Documents by each of their :meth:`~LintedDocument.statements`."""
        found: dict[Hashable, list[LintedDocument]] = defaultdict(list)
        for subject in self.subjects:
            for statement in subject.statements():
                found[statement].append(subject)
        return found

    @cached_property
    def facts(self) -> Mapping[Hashable, Counter[str]]:
        """How often each text of a fact occurs in a vendor's documents on one accelerator."""
        found: dict[Hashable, Counter[str]] = defaultdict(Counter)
        for subject in self.subjects:
            for key, fact in subject.document.facts.items():
                if cells.marker(fact.text) is None:
                    found[subject.fact_group(key)][self.spelling(fact.text)] += 1
        return found

    @cached_property
    def memory_totals(self) -> Mapping[Hashable, Counter[str]]:
        """How many documents state each total memory, in whole GiB, of a vendor's card."""
        found: dict[Hashable, Counter[str]] = defaultdict(Counter)
        for subject in self.subjects:
            stated = {(subject.card_group(row), row.memory.total_bytes) for row in subject.rows if row.memory}
            found_here = {(card, f"{total / 2**30:.0f} GiB") for card, total in stated if isinstance(total, int)}
            for card, total in found_here:
                found[card][total] += 1
        return found

    @cached_property
    def quality_kinds(self) -> Mapping[str, Counter[str]]:
        """How many documents of a case have each kind of result."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for subject in self.subjects:
            if subject.case_name and (kind := subject.quality_kind):
                found[subject.case_name][kind] += 1
        return found

    @cached_property
    def phrases(self) -> Mapping[str, set[str]]:
        """Words of the rows, by topology of several machines."""
        found: dict[str, set[str]] = defaultdict(set)
        for subject in self.subjects:
            for row in subject.rows:
                if row.topology and row.topology.nnodes > 1 and row.topology.phrase:
                    found[row.shape].add(row.topology.phrase)
        return found


def majority_against(counts: Counter[str], own: str) -> str | None:
    """Return what most others say if that is not the own statement; ``None`` if there is no such majority.

    A majority is twice as many as those that say the same as the own, so that one of two says nothing of the other.
    """
    most, count = counts.most_common(1)[0] if counts else (own, 0)
    return most if most != own and count >= _MIN_MAJORITY * max(counts[own], 1) else None


Function: TypeAlias = "Callable[[LintedDocument], Iterator[Problem]]"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with a stable id such as ``L04`` and a stable name such as ``blank-cell``. An error fails the lint.

    ``summary``, the first line of the function's docstring, says what is true of a good document, and ``why`` that
    matters to readers. ``evidence`` is needed besides the document. The function may raise :class:`NotChecked`. A rule
    with a reason in ``off_because`` is checked only where it is selected.
    """

    id: str
    name: str
    severity: Severity
    summary: str
    why: str
    fix: str
    evidence: str
    function: Function
    off_because: str = ""

    @property
    def url(self) -> str:
        """Address of the rule's page."""
        return f"{PAGES}/{self.id}.md"


def rule(
    id: str,
    name: str,
    *,
    why: str,
    fix: str,
    severity: Severity = "error",
    evidence: str = "",
    off_because: str = "",
) -> Callable[[Function], Rule]:
    """Make a rule from a function, whose docstring's first line is the summary; see :class:`Rule` for the arguments."""
    require_id(id, r"L\d{2}", "L04")
    return lambda function: Rule(
        id, name, severity, summary_of(function, id), why, fix, evidence, function, off_because
    )


DOCUMENT_RULE: Final = Rule(
    id="L00",
    name="document",
    severity="error",
    summary="All of the document can be read, and each comment for lint accepts something, with a reason.",
    why="text that was not read was not checked, and a comment that accepts nothing hides the next mistake",
    fix="do what the message says; a comment is written as `<!-- perf lint: ignore L04: reason -->`",
    evidence="",
    function=lambda subject: iter(()),
)
"""What lint itself finds while it reads a document. It can be neither selected nor ignored."""


_RULES: Final = Catalog("chipperf.lint.rules", Rule, noun="rule", listing="perf lint --list")


def all_rules() -> tuple[Rule, ...]:
    """Return all rules, ordered by number."""
    return tuple(_RULES.entries().values())


def find_rule(text: str) -> Rule:
    """Return the rule with this id or name, :data:`DOCUMENT_RULE` included; another text is a :class:`UsageError`."""
    wanted = unicodedata.normalize("NFKC", text).strip().casefold()
    for rule in (DOCUMENT_RULE, *all_rules()):
        if wanted in (rule.id.casefold(), rule.name):
            return rule
    return _RULES.find(text)


def choose_rules(
    select: Sequence[str] = (), ignore: Sequence[str] = (), extend_select: Sequence[str] = ()
) -> tuple[Rule, ...]:
    """Return the selected rules, by default those that are on, and the added ones, without the ignored ones.

    A text that is neither id nor name of a rule, or means :data:`DOCUMENT_RULE`, is a :class:`UsageError`.
    """
    on = select or [rule.id for rule in all_rules() if not rule.off_because]
    chosen, left_out = ([find_rule(text) for text in texts] for texts in ((*on, *extend_select), ignore))
    if DOCUMENT_RULE in (*chosen, *left_out):
        raise UsageError(
            f"{DOCUMENT_RULE.id} can be neither selected nor ignored",
            hint=f"it is always checked: 'perf lint explain {DOCUMENT_RULE.id}'",
        )
    return tuple(rule for rule in all_rules() if rule in chosen and rule not in left_out)
