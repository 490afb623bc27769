"""Jinja templates of the user, the vendor and core: where they are found, and what is said of a broken one."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined, TemplateNotFound

from chipperf.errors import PerfError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CORE_TEMPLATES = Path(__file__).parent.parent / "templates"


class _TranslatingEnvironment(Environment):
    """Jinja's environment, with the tag ``trans`` calling the same functions as ``_``: with values as arguments."""

    newstyle_gettext = True


def checked_directory(directory: Path | None, suffix: str) -> Path | None:
    """Return a directory of templates as an absolute path.

    Raises:
        UsageError: It does not exist; the hint says that its files end with ``suffix``.
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

    Plain ``NAME`` is the first of these that exists. Who renders installs the functions that translate.

    Args:
        user_templates: Directory whose templates come first.
        vendor_templates: Directory of the vendor plugin's templates.
        options: Further ones of Jinja's environment.
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


@contextmanager
def naming_broken_templates(suffix: str, *, example: str, documented: str) -> Iterator[None]:
    """Turn whatever goes wrong in a template of the block into an error that names its file and line.

    Args:
        suffix: How the names of the templates end.
        example: One of core's templates.
        documented: Where it says what a template can use.

    Raises:
        PerfError: A template does not exist, or is broken.
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
    """Return file and line of the innermost template an error came through; Jinja rewrites tracebacks to name them."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(suffix):
            return f"{frame.filename}, line {frame.lineno}"
    return "report"
