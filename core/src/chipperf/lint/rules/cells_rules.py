"""Rules on cells: blank cells, numbers, units, memory and placeholders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import reduce
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, TypeGuard

from chipperf.documents import cells, wording
from chipperf.documents.format import NOT_APPLICABLE
from chipperf.documents.markdown import Block, Table
from chipperf.documents.stated_units import stated_factor
from chipperf.languages import in_all_languages
from chipperf.lint.rule import Edit, LintedDocument, NotChecked, Problem, majority_against, rule
from chipperf.records.columns import THROUGHPUTS, columns_of
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.documents.case_document import DocumentRow
    from chipperf.documents.markdown import Place
    from chipperf.plugin.types import KnownDevice

_FOREIGN_MARKS: Final = re.compile(r"\\|-+|—+|n/?a", re.IGNORECASE)
_ESSENTIAL_FACTS: Final = {
    "card_title": "accelerator",
    "os": "OS",
    "kernel": "kernel",
    "driver": "driver",
    "container": "container",
    "framework": "framework",
}
_VERSIONS: Final = {"os", "kernel", "driver", "framework", "compiler", "dependencies"}
_DIGIT: Final = re.compile(r"\d")
_PLACEHOLDER: Final = re.compile(
    r"\b(?:\w*placeholder\w*|todo|tbd|fixme|lorem ipsum)\b|\bx{3,}\b|待补充|待填|待定|占位", re.IGNORECASE
)
_PERCENT: Final = re.compile("[%％]")
_TRAINING: Final = re.compile(
    r"(?<![a-z])train(?:ing)?[_ -]?(?:acc|set|samples|top|map|split|data)|训练集", re.IGNORECASE
)
_HALF_WIDTH: Final = {0x3000: 0x20, **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}}
_IDEOGRAPH: Final = re.compile(r"[\u3400-\u9fff]")
_IN_PERCENT: Final = ("accuracy", "mean average precision", "panoptic quality")
_NUMERIC: Final = (*(column.key for column in columns_of("report")), "tokens", "mfu")
_FORMAT: Final = re.compile("格式|format", re.IGNORECASE)
_DOUBLED: Final = re.compile(
    r"([的是为和与在了数])\1(?!\1)|\b(an?|and|for|from|in|is|of|on|the|to|with)\s+\2\b", re.IGNORECASE
)
"""Words that no text has twice in a row."""

_RATE: Final = re.compile(r"准确率|正确率|\baccuracy\b", re.IGNORECASE)
_ZERO_TO_ONE: Final = re.compile(r"(?<![\d.])0\s*(?:到|至|[-–~～]|to)\s*1(?![\d.])", re.IGNORECASE)
_MIN_DIGITS: Final = 3
_GIB: Final = 2**30
_FULL: Final = 0.985
_MIN_REPORTS: Final = 2
"""Reports that state the same total of a card read it from the device."""
_MOST_OF_DATA_SHEET: Final = 1.05
_MOST_OF_ANY_CARD: Final = 2**40


@rule(
    "L04",
    "blank-cell",
    why="blank may mean not run, not published, failed or forgotten",
    fix="write a number, or why there is none: not run, withheld (reason), failed (cause), / (does not apply), unknown",
)
def no_cell_is_blank(subject: LintedDocument) -> Iterator[Problem]:
    """Every cell and fact has a content, and each marker has one meaning."""
    for row in subject.rows:
        for column, cell in row.cells.items():
            header = subject.document.headers[column].text
            if not cell.text:
                yield Problem(cell.place, f"{_row(row)}: {header} is blank")
            elif _FOREIGN_MARKS.fullmatch(cell.text):
                yield Problem(cell.place, f"{_row(row)}: {header} is {cell.text!r}; the mark is '/'")
    for general in subject.document.general.values():
        if not general.value.text:
            yield Problem(general.value.place, f"{general.label.text} is blank")
    for key, fact in subject.document.facts.items():
        if not fact.text:
            yield Problem(fact.place, f"{key} is blank")
    for block, following in zip_longest(blocks := subject.document.markdown.blocks, blocks[1:]):
        if _is_heading(block) and (following is None or (_is_heading(following) and following.depth <= block.depth)):
            yield Problem(block.place, f"section {block.text[:40]!r} is empty", severity="warning")
    if subject.rows:
        yield from _what_every_run_has(subject)
    on_one_card = {_settings(row) for row in subject.rows if row.card_count == 1 and row.text("e2e_time") == ""}
    for row in subject.rows:
        if row.shape == "1x8" and row.text("e2e_time") == "/" and _settings(row) in on_one_card:
            place = row.cells["e2e_time"].place
            yield Problem(place, "e2e_time of 1x8 is '/' and of 1x1 blank: they look swapped")


def _is_heading(block: Block | Table) -> TypeGuard[Block]:
    return isinstance(block, Block) and block.kind == "heading"


def _what_every_run_has(subject: LintedDocument) -> Iterator[Problem]:
    """Yield the facts and values that are not there or do not apply, although every run has them."""
    facts = subject.document.facts
    lacking = [name for key, name in _ESSENTIAL_FACTS.items() if key not in facts]
    if facts and lacking:
        place = next(iter(facts.values())).place
        yield Problem(place, f"the environment does not name the {', '.join(lacking)}", severity="warning")
    for key in _VERSIONS & facts.keys():
        text = facts[key].text
        if cells.marker(text) is None and not wording.says_nothing(text) and not _DIGIT.search(text):
            yield Problem(facts[key].place, f"{key} {text!r} names no version", severity="warning")
    if (card := facts.get("card_title")) and card.text == NOT_APPLICABLE:
        yield Problem(card.place, "the accelerator is '/', and every run has one", severity="warning")
    for row in subject.rows:
        if row.card_count > 1 and row.text("parallel") == NOT_APPLICABLE:
            message = f"{_row(row)}: parallel is '/', and {row.card_count} cards run in some kind of parallelism"
            yield Problem(row.cells["parallel"].place, message, severity="warning")
    if subject.document.generated:
        return
    if not any(row.known(column) for row in subject.rows for column in _NUMERIC):
        yield Problem(subject.start, "no row has a measured value, and nothing says why", severity="warning")
        return
    for row in subject.rows:
        if {row.text(column) for column in _NUMERIC if column in row.cells} == {NOT_APPLICABLE}:
            message = f"{_row(row)} has no value, and nothing says why"
            yield Problem(row.label.place, message, severity="warning")
    speeds = [column for column in (*THROUGHPUTS, "tokens") if column in subject.document.headers]
    if speeds and all(row.text(column) == NOT_APPLICABLE for row in subject.rows for column in speeds):
        headers = ", ".join(subject.document.headers[column].text for column in reversed(speeds))
        message = f"every row has '/' for {headers}, and every run has a throughput"
        yield Problem(subject.start, message, severity="warning")


def _settings(row: DocumentRow) -> tuple[str | None, str | None]:
    return row.text("precision"), row.text("fix_hp")


def _row(row: DocumentRow) -> str:
    return f"row {row.label.text!r}" if row.label.text else f"row in line {row.label.place.line}"


@rule(
    "L13",
    "unit",
    why="results in different units cannot be compared, and a wrong metric has no meaning",
    fix="write the case's metric in the case's unit in every row",
)
def one_unit_per_metric(subject: LintedDocument) -> Iterator[Problem]:
    """All results have the case's unit, and a metric that suits the task."""
    written = [row for row in subject.rows if row.known("quality")]
    any_sign = any(_PERCENT.search(row.known("quality")) for row in written)
    for row in written:
        cell = row.cells["quality"]
        said = f"{_row(row)}: {cell.text!r}"
        has_sign = _PERCENT.search(cell.text) is not None
        if cell.text.count("&&") > row.headers["quality"].count("&&"):
            yield Problem(cell.place, f"{said} is two results in one cell")
        elif not wording.is_fraction(row.metric):
            continue
        elif _is_above_one(row):
            yield Problem(cell.place, f"{said} is more than 100 %")
        elif any_sign and not has_sign:
            yield Problem(cell.place, f"{said} has no %, other rows have")
        elif subject.case and row.quality is not None and not row.old_layout:
            as_percent = subject.case.report.quality_as_percent
            if as_percent and not has_sign:
                yield Problem(cell.place, f"{said} has no %, case {subject.case.name} has")
            elif has_sign and not as_percent:
                yield Problem(cell.place, f"{said} is a percentage, case {subject.case.name}'s a fraction")
        elif subject.case is None and not has_sign and (row.number("quality") or 0) > 1 and _has_sign(subject, row):
            yield Problem(cell.place, f"{said} is more than 1 and has no %")
    if written and subject.case is None:
        yield from _odd_notation(subject, written[0])
    legend = subject.document.general.get("quality")
    kind = wording.quality_kind(wording.refers_to_column(legend.value.text) or "") if legend else None
    if legend and kind not in (None, "accuracy", "other") and (rate := _RATE.search(legend.remark.text)):
        yield Problem(legend.remark.place, f"the general table says {rate[0]!r} of a result that is {kind}")
    above = [row for row in written if (row.number("quality") or 0) > 1]
    if legend and above and (limits := _ZERO_TO_ONE.search(legend.remark.text)):
        result = above[0].text("quality")
        yield Problem(legend.remark.place, f"the general table says {limits[0]!r}, a row has {result!r}")
    yield from _metric(subject)
    yield from _another_metric(subject)
    yield from _units(subject)


def _is_above_one(row: DocumentRow) -> bool:
    """Return whether a result is a number and no fraction, whichever way it is written."""
    number = cells.number(row.known("quality").rstrip("%％ "))
    return number is not None and row.quality is None and (row.metric is not None or "%" in row.known("quality"))


def _has_sign(subject: LintedDocument, row: DocumentRow) -> bool:
    """Return whether the case's percentages have a sign: its target is a fraction, or most other reports have it."""
    if row.metric not in _IN_PERCENT:
        return False
    try:
        return subject.need_target().value <= 1
    except NotChecked:
        signs = (_PERCENT.search(each.known("quality")) for each in _first_results(subject, row))
        return majority_against(Counter("with" if sign else "without" for sign in signs), "without") is not None


def _first_results(subject: LintedDocument, row: DocumentRow) -> Iterator[DocumentRow]:
    """Yield the first row with a result of every report of the case in the row's metric."""
    alike = [each for each in subject.corpus.subjects if subject.case_name and each.case_name == subject.case_name]
    first = (next((row for row in each.rows if row.quality is not None), None) for each in alike)
    yield from (each for each in first if each and each.metric == row.metric)


def _odd_notation(subject: LintedDocument, row: DocumentRow) -> Iterator[Problem]:
    """Yield the notation of results that differs from that of most other reports of the case."""
    counts = Counter(_notation(each) for each in _first_results(subject, row))
    own = _notation(row)
    most = majority_against(counts, own)
    if most and row.metric in _IN_PERCENT and row.quality is not None:
        yield Problem(
            row.cells["quality"].place,
            f"{row.known('quality')!r} is {own}, in {counts[most]} other reports of {subject.case_name} it is {most}",
        )


def _notation(row: DocumentRow) -> str:
    return "a percentage" if _PERCENT.search(row.known("quality")) or (row.number("quality") or 0) > 1 else "a fraction"


def _metric(subject: LintedDocument) -> Iterator[Problem]:
    header = subject.document.headers.get("quality")
    kind = subject.quality_kind
    if subject.case:
        report = subject.case.report
        own = wording.quality_kind(report.quality_column)
        if header and kind and kind != own:
            yield Problem(header.place, f"{header.text!r} is {kind}, the result of {subject.case.name} is {own}")
        task = subject.document.general.get("task")
        said = wording.normal(task.value.text) if task else ""
        titles = [wording.normal(title) for title in in_all_languages(report.task)]
        if task and not any(said in title or title in said for title in titles):
            yield Problem(
                task.value.place, f"task {task.value.text!r} is not that of {subject.case.name}: {report.task.en}"
            )
    elif header and kind and subject.case_name:
        targets = {wording.quality_kind(target.metric) for target in subject.base.targets} if subject.base else set()
        own = next(iter(targets)) if len(targets) == 1 and "other" not in targets else None
        kinds = subject.corpus.quality_kinds[subject.case_name]
        # Most reports may be right, and the key of the target called wrongly.
        if own and own != kind and kinds[own] >= kinds[kind]:
            yield Problem(header.place, f"{header.text!r} is {kind}, the target of the base configuration is {own}")
        elif own is None and (most := majority_against(kinds, kind)):
            yield Problem(header.place, f"{header.text!r} is {kind}, in {kinds[most]} other reports it is {most}")


def _another_metric(subject: LintedDocument) -> Iterator[Problem]:
    """Yield results on the training samples, of another rank than the case's, of no metric, and those not there."""
    header, legend = subject.document.headers.get("quality"), subject.document.general.get("quality")
    named = wording.refers_to_column(legend.value.text) if legend else None
    if header is None:
        if legend and named and subject.rows:
            yield Problem(legend.value.place, f"the performance table has no column {named!r} with the result")
        return
    if named and wording.quality_kind(header.text) is None and wording.normal(header.text) != wording.normal(named):
        yield Problem(header.place, f"{header.text!r} names no metric, the general table {named!r}")
    asked = subject.case.report.quality_legend.en if subject.case else ""
    wanted = asked or " ".join(target.key for target in (subject.base.targets if subject.base else ()))
    texts = [header, *((legend.value, legend.remark) if legend else ())]
    for located in texts:
        if _TRAINING.search(located.text) and wanted and not _TRAINING.search(wanted):
            yield Problem(located.place, f"{located.text!r} is of the training samples, the target is {wanted!r}")
        ranks, own = wording.ranks(located.text), wording.ranks(wanted)
        if ranks and own and ranks.isdisjoint(own):
            yield Problem(located.place, f"{located.text!r} is another metric than the target's, {wanted!r}")


def _units(subject: LintedDocument) -> Iterator[Problem]:
    """Yield the headers and legends that give a column another unit than it has."""
    for column in columns_of("report"):
        header, legend = subject.document.headers.get(column.key), subject.document.general.get(column.key)
        stated = [(header, stated_factor(column, header.text, ""))] if header else []
        if legend:
            stated += [(each, stated_factor(column, "", each.text)) for each in (legend.value, legend.remark)]
        for located, factor in stated if column.kind in ("time", "throughput") else ():
            if factor != 1:
                yield Problem(located.place, f"{located.text!r} is not the unit of {column.key}, {column.unit}")


@rule(
    "L15",
    "memory",
    why="a total that is not that of the card, or that is used to the last byte, was not read from the card",
    fix="write used/total in GiB, both read from the device",
)
def memory_fits_the_card(subject: LintedDocument) -> Iterator[Problem]:
    """Used memory is less than the total, and the total is that of the card, in the same spelling in every row."""
    totals: dict[str, dict[str, DocumentRow]] = defaultdict(dict)
    yield from _unlike_the_legend(subject)
    for row in subject.rows:
        value = row.memory
        if value is None:
            continue
        cell = row.cells["mem"]
        _, separator, total = cell.text.partition("/")
        if value.other_unit:
            yield Problem(cell.place, f"mem {cell.text!r} is in {value.other_unit}, reports are in GiB")
        elif separator and len(cell.text.split()) > 1:
            joined = "".join(cell.text.split())
            edits = (Edit(cell.place, cell.text, joined),) if cells.memory(joined) == value else ()
            yield Problem(cell.place, f"mem {cell.text!r} has spaces in it", edits=edits)
        if not value.used_bytes:
            yield Problem(cell.place, f"mem {cell.text!r} uses nothing, and every run uses memory")
        if isinstance(value.total_bytes, Missing):
            continue
        if value.total_bytes > _MOST_OF_ANY_CARD:
            yield Problem(cell.place, f"mem {cell.text!r} is more than any card has, perhaps in MiB")
            continue
        products = _products(subject, row.card)
        is_of_card = any(_may_have(product, value.total_bytes) for product in products)
        group, own = subject.card_group(row), f"{value.total_bytes / _GIB:.0f} GiB"
        reports = subject.corpus.memory_totals[group]
        # A card of several sizes has several totals.
        most = majority_against(reports, own) if len({product.memory_bytes for product in products}) <= 1 else None
        if value.used_bytes > value.total_bytes:
            yield Problem(cell.place, f"mem {cell.text!r} uses more than there is")
        elif value.used_bytes == value.total_bytes:
            yield Problem(cell.place, f"mem {cell.text!r} is full to the last digit")
        elif value.used_bytes >= value.total_bytes * _FULL and not is_of_card and reports[own] < _MIN_REPORTS:
            yield Problem(
                cell.place, f"mem {cell.text!r} is full to the last percent; the total is perhaps not the device's"
            )
        totals[f"{row.card} {row.topology.note}" if row.topology else ""][total.strip()] = row
        if most:
            yield Problem(cell.place, f"total {own}; {group[1]} has {most} in {reports[most]} other reports")
        if products and not is_of_card:
            known = " or ".join(sorted({f"{(product.memory_bytes or 0) / _GIB:g} GiB" for product in products}))
            yield Problem(
                cell.place, f"total {value.total_bytes / _GIB:g} GiB; {row.card} has {known} by its data sheet"
            )
    for card, spellings in totals.items():
        # A card may exist in several sizes, and a report on both.
        sizes = {round(float(number)) for text in spellings if (number := cells.number(text)) is not None}
        if len(spellings) > 1 and (len(sizes) == 1 or len(_sizes(subject, card.strip())) < len(sizes)):
            last = list(spellings.values())[-1]
            name = card.strip() or "the card"
            yield Problem(last.cells["mem"].place, f"totals of {name} differ: {', '.join(spellings)}")
    yield from subject.implausible("memory")


def _unlike_the_legend(subject: LintedDocument) -> Iterator[Problem]:
    """Yield what the general table says of memory and no cell does: used and total, and a unit."""
    legend = subject.document.general.get("mem")
    unread = [row for row in subject.rows if row.known("mem") and row.memory is None]
    if legend is None or not unread:
        return
    cell = unread[0].cells["mem"]
    if "/" in wording.in_brackets(wording.refers_to_column(legend.value.text) or "") and "/" not in cell.text:
        yield Problem(cell.place, f"mem {cell.text!r} has no total, and the general table says {legend.value.text!r}")
    unit = cells.unit_of_memory(cell.text)
    if unit and "gib" in legend.remark.text.casefold():
        yield Problem(cell.place, f"mem {cell.text!r} is in {unit}, and the general table says GiB")


def _may_have(product: KnownDevice, total_bytes: int) -> bool:
    return not product.is_more_than(total_bytes) and total_bytes <= (product.memory_bytes or 0) * _MOST_OF_DATA_SHEET


def _sizes(subject: LintedDocument, card: str) -> set[int | None]:
    return {product.memory_bytes for product in _products(subject, card)}


def _products(subject: LintedDocument, card: str) -> tuple[KnownDevice, ...]:
    """Return the products with known memory that ``card`` names; a longer name is that of a part or another card.

    A short name stands for every size of the card, unless the environment names the product itself.
    """
    mentions = [mention for mention in subject.names.find(card) if mention.vendor == subject.vendor]
    named = [mention for mention in mentions if mention.card]
    rest = reduce(lambda text, mention: text.replace(mention.text, "", 1), mentions, card)
    if len(named) != 1 or re.search(r"[^\W_]", rest):
        return ()
    sizes = subject.names.sizes(named[0])
    fact = subject.document.facts.get("card_title")
    exact = [product for product in sizes if fact and wording.normal(product.name) in wording.normal(fact.text)]
    return tuple(exact) or sizes


@rule(
    "L25",
    "number",
    why="a reader and a program must get the same number, with enough digits to distinguish values",
    fix="write one decimal number with at least three significant digits",
)
def numbers_are_numbers(subject: LintedDocument) -> Iterator[Problem]:
    """Every cell in a column of numbers has a marker, or a number with enough digits."""
    for row in subject.rows:
        for column in _NUMERIC:
            text = row.known(column)
            if text and "&" not in text and not _is_number(row, column):
                yield Problem(row.cells[column].place, f"{_row(row)}: {row.headers[column]} {text!r} is not a number")
        for column, cell in row.cells.items():
            plain = cell.text.translate(_HALF_WIDTH)
            if column != "configuration" and plain != cell.text and not _IDEOGRAPH.search(plain):
                message = f"{_row(row)}: {column} {cell.text!r} has full-width characters"
                yield Problem(cell.place, message, "warning", (Edit(cell.place, cell.text, plain),))
        values = [(name, row.cells[name]) for name in THROUGHPUTS if row.number(name) is not None]
        same = Counter(cell.text for _, cell in values)
        for name, cell in values:
            if same[cell.text] > 1 and len(re.sub(r"\D", "", cell.text).strip("0")) < _MIN_DIGITS:
                yield Problem(
                    cell.place,
                    f"{_row(row)}: {row.headers[name]} {cell.text!r} is rounded until it equals another throughput",
                )
                break


def _is_number(row: DocumentRow, column: str) -> bool:
    if column == "mem":
        return row.memory is not None
    text = row.known(column).rstrip("%％ ")
    # A result that is no fraction, such as a perplexity, is a number too, and a log-likelihood may be negative.
    return cells.number(text.removeprefix("-") if column in ("quality", "target") else text) is not None


@rule(
    "L30",
    "placeholder",
    why="the author meant to complete the text later",
    fix="write the value, or the reason why it is missing",
)
def no_placeholder_is_left(subject: LintedDocument) -> Iterator[Problem]:
    """No text of a template is left, and nothing is written twice."""
    document = subject.document
    if not document.is_report:
        raise NotChecked("it is not a case document")
    texts = [*document.facts.values(), *document.remarks]
    if document.title:
        texts.append(document.title)
    for general in document.general.values():
        texts += [general.value, general.remark]
    for row in subject.rows:
        texts += row.cells.values()
    described = _descriptions_of_formats(subject)
    for located in texts:
        if located.place not in described and (match := _PLACEHOLDER.search(located.text)):
            yield Problem(located.place, f"{match[0]!r} is left in {located.text[:60]!r}")
    for located in texts:
        if match := _DOUBLED.search(located.text):
            yield Problem(located.place, f"{match[0]!r} is doubled in {located.text[:60]!r}", severity="warning")
    yield from _doubled_sections(subject)
    for fact in document.facts.values():
        label, colon, _ = fact.text.replace("：", ":").partition(":")
        if colon and wording.normal(label) in wording.FACTS:
            yield Problem(fact.place, f"the label {label!r} stands twice")
    short = document.general.get("card_short_name")
    if short and re.fullmatch(r".*\w\s*[/\\]", short.value.text):
        yield Problem(short.value.place, f"short name {short.value.text!r} has a mark for nothing behind it")


def _doubled_sections(subject: LintedDocument) -> Iterator[Problem]:
    """Yield a section with a heading of an earlier one if one of the two has all that the other says."""
    texts: dict[Block, list[str]] = {}
    heading = None
    for block in subject.document.markdown.blocks:
        if _is_heading(block):
            heading = block
            texts[heading] = []
        elif heading:
            rows = (block.header, *block.rows) if isinstance(block, Table) else ((block,),)
            texts[heading] += [wording.normal(cell.text) for row in rows for cell in row]
    before: dict[str, tuple[Block, str]] = {}
    for heading, parts in texts.items():
        name, text = wording.normal(heading.text), "".join(parts)
        first, its = before.setdefault(name, (heading, text))
        short, long = sorted((its, text), key=len)
        if first is not heading and short and short in long:
            message = f"section {heading.text[:40]!r} stands in line {first.place.line} already"
            yield Problem(heading.place, message, severity="warning")


def _descriptions_of_formats(subject: LintedDocument) -> set[Place]:
    """Return the places of cells that say how something is written, such as ``xxx W``."""
    return {
        cell.place
        for block in subject.document.markdown.blocks
        if isinstance(block, Table)
        for row in block.rows
        for header, cell in zip(block.header, row, strict=False)
        if _FORMAT.search(header.text)
    }
