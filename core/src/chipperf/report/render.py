"""Rendering a report's view with Jinja templates of the user, the vendor and core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined
from markupsafe import Markup

from chipperf.documents import format as formatting
from chipperf.documents.topology import topology_words
from chipperf.errors import UsageError
from chipperf.languages import DEFAULT, LANGUAGES, Stored, in_language, phrase, read_translation
from chipperf.plugin.installed import package_directory
from chipperf.plugin.types import Title
from chipperf.records.columns import columns_of
from chipperf.records.schema import Missing
from chipperf.report import templating
from chipperf.report.tracing import note_written, watch
from chipperf.report.view import build_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from chipperf.languages import Language
    from chipperf.plugin.installed import PluginEntry
    from chipperf.records.schema import Record, Text
    from chipperf.report.tracing import FieldSource
    from chipperf.report.view import PerRows, ReportView

_SUFFIX = ".md.j2"


def render_report(
    records: Sequence[Record],
    *,
    baseline: Sequence[Record] = (),
    language: Language = DEFAULT,
    user_templates: Path | None = None,
    vendor_templates: Path | None = None,
) -> str:
    """Return one vendor's report on one case, as Markdown, without the picture of its convergence curves.

    The records are those of :func:`~chipperf.report.view.build_view`, the other arguments those of :func:`render_page`,
    and the errors those of both.
    """
    view = build_view(records, baseline=baseline)
    page = render_page(view, language=language, user_templates=user_templates, vendor_templates=vendor_templates)
    return page.text


@dataclass(frozen=True, slots=True)
class SourcedText:
    """A part of a page that was made from records: its offset in the page's text, and its sources."""

    offset: int
    sources: tuple[FieldSource, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered report in Markdown, and its parts made from traced records, in the order of the text.

    ``template``, and all used templates that are ``foreign`` to core, have names such as ``core/report.md.j2``.
    """

    text: str
    parts: tuple[SourcedText, ...]
    template: str
    foreign: tuple[str, ...] = ()


def render_page(
    view: ReportView,
    *,
    language: Language,
    user_templates: Path | None = None,
    vendor_templates: Path | None = None,
    names_templates: bool = True,
) -> Page:
    """Return a report as Markdown and, for traced records, the source fields of each part.

    The directories are searched in this order: the user's, the vendor's, core's. In each, ``CASE.md.j2`` comes before
    ``report.md.j2``. The first template found is rendered. Core always puts the banner that marks simulated runs and
    sample datasets before it, and behind it the names of all templates that are not core's, unless
    ``names_templates`` is false. ``docs/report.md`` describes what templates can use.

    Raises:
        UsageError: A directory or language does not exist, or a directory has a template for only one language.
        PerfError: A template is broken; the message names the template and the fault.
    """
    if language not in LANGUAGES:
        raise UsageError(f"unknown report language {language!r}", hint=f"languages: {', '.join(LANGUAGES)}")
    names = (view.case, "report")
    directories = [templating.checked_directory(directory, _SUFFIX) for directory in (user_templates, vendor_templates)]
    for directory in filter(None, directories):
        _refuse_templates_of_one_language(directory, names)
    environment = _environment(
        *directories,
        language,
        exact=view.kind == "imported",
        as_percent=view.profile.quality_as_percent,
        round_up=view.lower_is_better,
        layout=view.layout,
    )
    environment.foreign.clear()
    banner = _render(environment, [f"core/banner{_SUFFIX}"], view)
    body = _render(environment, templating.template_names(names, _SUFFIX), view)
    shifted = (SourcedText(part.offset + len(banner.text), part.sources) for part in body.parts)
    text = banner.text + body.text
    foreign = tuple(sorted(environment.foreign))
    if foreign and names_templates:
        text = text.rstrip("\n") + "\n" + _render(environment, [f"core/foreign{_SUFFIX}"], view, foreign=foreign).text
    return Page(text, (*banner.parts, *shifted), body.template, foreign)


def template_directory(entry: PluginEntry) -> Path | None:
    """Return the ``templates`` directory in a vendor plugin's package, or ``None`` if it has none."""
    package = package_directory(entry)
    directory = package / "templates" if package else None
    return directory if directory and directory.is_dir() else None


def _refuse_templates_of_one_language(directory: Path, names: Iterable[str]) -> None:
    """Raise an error if a template's name has a language, as in chipperf before 0.2, because it is not found."""
    for name, language in product(names, LANGUAGES):
        template = directory / f"{name}.{language}{_SUFFIX}"
        if template.exists():
            raise UsageError(
                f"template {template} is for one language, but a template is for all languages",
                hint=f"rename it to {name}{_SUFFIX}, make it extend core/report{_SUFFIX}, "
                "and write your own texts as {{ both('中文', 'English') }}",
            )


@lru_cache(maxsize=16)
def _environment(
    user_templates: Path | None,
    vendor_templates: Path | None,
    language: Language,
    *,
    exact: bool,
    as_percent: bool,
    round_up: bool,
    layout: int,
) -> templating.SandboxedTemplates:
    """Return Jinja's environment; ``exact`` writes values with all digits."""
    environment = templating.SandboxedTemplates(
        user_templates,
        vendor_templates,
        # With escaping on, Jinja tells rendered blocks and macros from values. finalize escapes the values, because
        # HTML's rules do not protect a Markdown table.
        finalize=partial(_finalize, language=language),
    )
    environment.globals |= {
        "template_version": layout,
        "language": language,
        "columns_of": columns_of,
        **_translators(language),
    }
    environment.tests["known"] = _is_known
    environment.filters |= {
        "number": partial(formatting.number, exact=exact),
        "quality": partial(formatting.quality, exact=exact),
        "gib": partial(formatting.gib, exact=exact),
        "in_unit": partial(formatting.in_unit, as_percent=as_percent, round_up=round_up, exact=exact),
        "setting": formatting.setting,
        "marker": formatting.marker,
        "stored": lambda text: Stored(text, since_3=layout > 2) if layout > 1 and isinstance(text, str) else text,
        "in_words": lambda topology: topology_words(topology.nnodes, topology.nproc_per_node),
        "per_row": partial(_per_row, language=language),
    }
    return environment


def _translators(language: Language) -> dict[str, Callable[..., Markup]]:
    """Return the translation functions of templates, by name; texts are Markdown, and values in them are escaped."""
    translation = read_translation(language)

    def fill(text: str, values: Mapping[str, object]) -> Markup:
        return Markup(text) % {name: _written(value, language) for name, value in values.items()}

    return {
        "gettext": lambda english, /, **values: fill(translation.find(english), values),
        "pgettext": lambda context, english, /, **values: fill(translation.find(english, context), values),
        "ngettext": lambda one, many, num, /, **values: fill(
            translation.find_plural(one, many, num), {"num": num, **values}
        ),
        "both": lambda zh, en: Markup(in_language(Title(zh=zh, en=en), language)),
    }


def _finalize(value: Any, *, language: Language) -> Markup:
    written = _written(value, language)
    note_written(written)
    return written


def _written(value: Any, language: Language) -> Markup:
    """Return a value as Markdown in a language. Text that is already Markdown does not change."""
    if hasattr(value, "__html__"):
        return Markup(value)
    # An inline "if" without "else" is undefined, and empty.
    text = str(value) if isinstance(value, Undefined) else formatting.text_or_marker(value, language)
    return Markup(formatting.escape_markdown(text))


def _is_known(value: Any) -> bool:
    """Return whether a value is known; for a fact over rows, whether any row has it."""
    if isinstance(value, tuple):
        return any(_is_known(shared.value) for shared in value)
    return not isinstance(value, Missing)


def _per_row(facts: tuple[PerRows[Text], ...], *, language: Language) -> str:
    """Return a fact on one line. If its values differ, each is followed by its rows."""
    texts = []
    for fact in facts:
        text = formatting.text_or_marker(fact.value, language)
        of_rows = phrase("%(fact)s (%(rows)s)", fact=text, rows=fact.rows)
        texts.append(in_language(of_rows, language) if fact.rows else text)
    return in_language(phrase("; "), language).join(texts)


def _render(
    environment: templating.SandboxedTemplates, names: Sequence[str], view: ReportView, **variables: Any
) -> Page:
    chunks: list[str] = []
    parts: list[SourcedText] = []
    offset = 0
    documented = "docs/report.md lists the variables, filters and blocks a template can use"
    with templating.naming_broken_templates(_SUFFIX, documented=documented), watch() as reads:
        template = environment.select_template(names)
        # A chunk is the text of an expression or a piece of the template's text. For the template's text, the reads of
        # conditions and loops are dropped: they decide whether text is written, not its content.
        for chunk in templating.generate(template, {"view": view, **variables}):
            begin = 0
            for text, sources in reads.take_written():
                # A macro or an overridden block gives all its texts as one chunk.
                found = chunk.find(text, begin)
                begin = found + len(text) if found >= 0 else begin
                if sources:
                    parts.append(SourcedText(offset + max(found, 0), sources))
            chunks.append(chunk)
            offset += len(chunk)
    return Page("".join(chunks), tuple(parts), environment.name_with_place(template))
