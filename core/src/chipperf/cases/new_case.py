"""Creating a package with a new case from templates: it trains, and passes the contract of cases as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from chipperf.cases.registry import case_names
from chipperf.errors import UsageError
from chipperf.plugin.scaffold import require_name, write_project

_TEMPLATES: Final = Path(__file__).parent.parent / "templates" / "case"
_SHARED: Final = ("LICENSE", ".gitignore.j2", "src/chipperf_NAME/py.typed")
_COMMANDS: Final = ("new", "show")
"""What ``perf cases`` takes for its own commands."""


def create_case(name: str, title: str, directory: Path) -> tuple[Path, ...]:
    """Write the project ``chipperf-NAME`` with one case below a directory, and return the paths of its files.

    A :class:`UsageError` says what cannot be used or written, or that there is such a case; no file is written then.
    """
    require_name(name, "a case")
    if name in (*case_names(), *_COMMANDS):
        raise UsageError(f"{name!r} is taken", hint=f"installed cases: {', '.join(case_names())}; choose another name")
    if not title.strip() or not title.isprintable():
        raise UsageError(f"the title {title!r} is not a line of text", hint="give another --title")
    distribution = f"chipperf-{name.replace('_', '-')}"
    variables = {"name": name, "title": title, "distribution": distribution, "package": f"chipperf_{name}"}
    project = directory / distribution
    return tuple(project / file for file in write_project(project, _TEMPLATES, variables, shared=_SHARED))
