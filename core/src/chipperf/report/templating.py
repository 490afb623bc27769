"""Finding Jinja templates of the user, the vendor and core, and reporting broken ones."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, TemplateNotFound

from chipperf.errors import PerfError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CORE_TEMPLATES = Path(__file__).parent.parent / "templates"


class _TranslatingEnvironment(Environment):
    """Jinja's environment, where the tag ``trans`` passes values as arguments to the same functions as ``_``."""

    newstyle_gettext = True


def checked_directory(directory: Path | None, suffix: str) -> Path | None:
    """Return a directory of templates, whose names end with ``suffix``, as an absolute path.

    Raises:
        UsageError: It does not exist.
    """
    if directory is None:
        return None
    if not directory.is_dir():
        raise UsageError(
            f"template directory {directory} does not exist", hint=f"name a directory with *{suffix} files"
        )
    return directory.resolve()


def make_environment(user_templates: Path | None, vendor_templates: Path | None, **options: Any) -> Environment:
    """Return an environment that finds templates as ``user/NAME``, ``vendor/NAME`` or ``core/NAME``.

    Plain ``NAME`` is the first of these that exists. The caller installs the translation functions.
    """
    places = {"user": user_templates, "vendor": vendor_templates, "core": CORE_TEMPLATES}
    loaders = {place: FileSystemLoader(directory) for place, directory in places.items() if directory}
    return _TranslatingEnvironment(
        loader=ChoiceLoader([PrefixLoader(loaders), *loaders.values()]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
        extensions=["jinja2.ext.i18n"],
        **options,
    )


def template_names(names: Sequence[str], suffix: str) -> list[str]:
    """Return the names of templates with their places, in the order in which they are searched."""
    return [f"{place}/{name}{suffix}" for place in ("user", "vendor", "core") for name in names]


@contextmanager
def naming_broken_templates(suffix: str, *, example: str, documented: str) -> Iterator[None]:
    """Turn every template error in the block into a :class:`PerfError` that names the template's file and line.

    Its hint names an ``example`` of core's templates, or where it is ``documented`` what a template can use.
    """
    try:
        yield
    except TemplateNotFound as error:
        raise PerfError(
            f"template {error.name!r}, which {_failing_template(error, suffix)} asks for, does not exist",
            hint=f"templates of core are called core/NAME, for example {example}",
        ) from error
    except Exception as error:
        raise PerfError(f"template {_failing_template(error, suffix)}: {error}", hint=documented) from error


def _failing_template(error: Exception, suffix: str) -> str:
    """Return the file and line of the innermost template in an error's traceback, which Jinja rewrites."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(suffix):
            return f"{frame.filename}, line {frame.lineno}"
    return "report"
