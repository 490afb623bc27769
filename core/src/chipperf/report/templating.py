"""Finding Jinja templates of the user, the vendor and core, running them in bounds, and reporting broken ones."""

from __future__ import annotations

import resource
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os.path import normpath
from pathlib import Path, PurePath
from types import FunctionType
from typing import Any, Final, NoReturn

from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader, StrictUndefined, Template, TemplateNotFound
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel

from chipperf.errors import PerfError, UsageError

CORE_TEMPLATES = Path(__file__).parent.parent / "templates"

_MAX_CPU_S: Final = 60.0
_MAX_MEMORY_BYTES: Final = 2 * 2**30
_MAX_PAGE_CHARACTERS: Final = 64 * 2**20
_MAX_EXPONENT: Final = 1000
_MAX_BITS: Final = 100_000
_MOST_ATTRIBUTES: Final = 10_000

_CODE: Final = (FunctionType, type)


class SandboxedTemplates(ImmutableSandboxedEnvironment):
    """Jinja's sandbox: a template of others reads values, and neither changes them nor reaches Python's internals.

    Templates are found as ``core/NAME``, ``user/NAME`` or ``vendor/NAME``. The tag ``trans`` passes values as arguments
    to the same functions as ``_``, which the caller installs.

    Attributes:
        foreign: Names, with the place, of the used templates that are not core's, until it is cleared.
    """

    newstyle_gettext = True
    intercepted_binops = frozenset({"**", "*"})

    def __init__(self, user_templates: Path | None, vendor_templates: Path | None, **options: Any) -> None:
        """Set the directories of the templates. Plain ``NAME`` is the user's, the vendor's, or core's."""
        found_first = {"user": user_templates, "vendor": vendor_templates, "core": CORE_TEMPLATES}
        # Without "..", which Jinja leaves out of the names of files too.
        self._places = {place: Path(normpath(directory)) for place, directory in found_first.items() if directory}
        self.foreign: set[str] = set()
        self._safe: dict[tuple[type, str], bool] = {}
        loaders = {place: FileSystemLoader(directory) for place, directory in self._places.items()}
        super().__init__(
            loader=ChoiceLoader([PrefixLoader(loaders), *loaders.values()]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=True,
            extensions=["jinja2.ext.i18n"],
            **options,
        )

    def name_with_place(self, template: Template) -> str:
        """Return a template's name with its place, which ``Template.name`` lacks."""
        file = Path(template.filename or "")
        return next(
            f"{place}/{file.relative_to(directory)}"
            for place, directory in reversed(self._places.items())
            if file.is_relative_to(directory)
        )

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether templates may read an attribute.

        The methods of pydantic can read files and unpickle, the functions that a case names can do anything.
        """
        if isinstance(value, _CODE):
            return False
        # Everything else depends on the object's type alone, and a page reads a thousand attributes of few types.
        kind = type(obj), attr
        if kind not in self._safe:
            if len(self._safe) >= _MOST_ATTRIBUTES:
                self._safe.clear()
            is_model = isinstance(obj, BaseModel) and hasattr(BaseModel, attr)
            self._safe[kind] = (
                not isinstance(obj, PurePath) and not is_model and super().is_safe_attribute(obj, attr, value)
            )
        return self._safe[kind]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a power or product, unless it takes so long that nothing can interrupt it."""
        if operator == "**" and (not isinstance(right, int | float) or right > _MAX_EXPONENT):
            raise SecurityError(f"the exponent {right} is too large")
        if any(isinstance(number, int) and number.bit_length() > _MAX_BITS for number in (left, right)):
            raise SecurityError(f"a factor has more than {_MAX_BITS} bits")
        return super().call_binop(context, operator, left, right)

    def _load_template(self, *arguments: Any) -> Template:
        # Every template comes from here, also one that another extends or includes.
        template = super()._load_template(*arguments)
        name = self.name_with_place(template)
        if not name.startswith("core/"):
            self.foreign.add(name)
        return template


def checked_directory(directory: Path | None, suffix: str) -> Path | None:
    """Return a directory of templates ``*SUFFIX`` as an absolute path; if there is none, raise :class:`UsageError`."""
    if directory is None:
        return None
    if not directory.is_dir():
        raise UsageError(
            f"template directory {directory} does not exist", hint=f"name a directory with *{suffix} files"
        )
    return directory.resolve()


def template_names(names: Sequence[str], suffix: str) -> list[str]:
    """Return the names of templates with their places, in the order in which they are searched."""
    return [f"{place}/{name}{suffix}" for place in ("user", "vendor", "core") for name in names]


@contextmanager
def naming_broken_templates(suffix: str, *, documented: str) -> Iterator[None]:
    """Turn every template error in the block into a :class:`PerfError` that names the template's file and line.

    Templates that compute or allocate without end are errors. ``documented`` says where to read what they can use.
    """
    try:
        with _bounded():
            yield
    except TemplateNotFound as error:
        raise PerfError(
            f"template {error.name!r}, which {_failing_template(error, suffix)} names, does not exist",
            hint=f"templates of core are called core/NAME, for example core/report{suffix}",
        ) from error
    except Exception as error:
        fault = "it takes too much memory" if isinstance(error, MemoryError) else error
        raise PerfError(f"template {_failing_template(error, suffix)}: {fault}", hint=documented) from error


def generate(template: Template, variables: Mapping[str, object]) -> Iterator[str]:
    """Yield the chunks of a page, until it is larger than any report."""
    characters = 0
    for chunk in template.generate(variables):
        characters += len(chunk)
        if characters > _MAX_PAGE_CHARACTERS:
            raise SecurityError(f"more than {_MAX_PAGE_CHARACTERS} characters come from {template.filename}")
        yield chunk


@contextmanager
def _bounded() -> Iterator[None]:
    """Limit the block's processor time, and the memory that it takes in addition; only in the main thread."""

    def stop(signum: int, frame: object) -> NoReturn:
        raise SecurityError(f"it has computed for {_MAX_CPU_S:g} s")

    used_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGVTALRM, stop)
    limit = min(each for each in (used_bytes + _MAX_MEMORY_BYTES, *limits) if each != resource.RLIM_INFINITY)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limits[1]))
        signal.setitimer(signal.ITIMER_VIRTUAL, _MAX_CPU_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _failing_template(error: Exception, suffix: str) -> str:
    """Return the file and line of the innermost template in an error's traceback, which Jinja rewrites."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(suffix):
            return f"{frame.filename}, line {frame.lineno}"
    return "report"
