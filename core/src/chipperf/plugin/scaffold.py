"""Creating a new vendor plugin from templates: a complete package that passes level 0 of the contract."""

from __future__ import annotations

import errno
import functools
import json
import keyword
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import chipperf
from chipperf.errors import UsageError
from chipperf.plugin import installed, selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEMPLATES: Final = Path(__file__).parent.parent / "templates" / "plugin"

_NAME: Final = re.compile(r"[a-z](?:[a-z0-9_]*[a-z0-9])?")
_DEVICE_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlugin:
    """The values that fill the templates of a new plugin: the vendor's name, its title in reports, its device type."""

    name: str
    title: str
    device_type: str

    @property
    def distribution(self) -> str:
        """Name of the distribution for pip."""
        return f"chipperf-{self.name.replace('_', '-')}"

    @property
    def package(self) -> str:
        """Name of the package for imports."""
        return f"chipperf_{self.name}"


def create_plugin(plugin: NewPlugin, directory: Path) -> tuple[Path, ...]:
    """Write a plugin's project into a new or empty directory, and return the paths of the files in it.

    A :class:`UsageError` says what cannot be used or written, or that the vendor is installed; no file is written then.
    """
    _require_free_name(plugin.name)
    if not plugin.title.strip() or not plugin.title.isprintable():
        raise UsageError(f"the title {plugin.title!r} is not a line of text", hint="give another --title")
    if not _DEVICE_TYPE.fullmatch(plugin.device_type):
        raise UsageError(
            f"{plugin.device_type!r} is not the type of a torch.device",
            hint="give --device-type the part before the colon, for example cuda",
        )
    variables = {**asdict(plugin), "distribution": plugin.distribution, "package": plugin.package}
    return write_project(directory, TEMPLATES, variables)


def write_project(
    directory: Path, templates: Path, variables: Mapping[str, str], *, shared: Sequence[str] = ()
) -> tuple[Path, ...]:
    """Render templates into a new or empty directory, and return the paths of the files in it.

    Args:
        variables: What fills the templates; ``name`` also stands for ``NAME`` in the paths of files.
        shared: Templates of a plugin that the project has too.

    Raises:
        UsageError: The directory cannot be used or written; no file is written then.
    """
    if not directory.absolute().parent.is_dir():
        raise UsageError(f"{directory.parent} is not a directory", hint="make it first, or choose another --directory")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is not an empty directory", hint="choose another place with --directory")
    try:
        # Use the same file system, so that the last step is a single rename.
        with tempfile.TemporaryDirectory(prefix=".chipperf-new-", dir=directory.absolute().parent) as workspace:
            project = Path(workspace) / "project"
            project.mkdir()
            files = _render_all(project, templates, variables, shared)
            os.replace(project, directory)
    except OSError as error:
        hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another --directory"
        raise UsageError(f"cannot write to {directory}: {error.strerror}", hint=hint) from error
    return files


def _require_free_name(name: str) -> None:
    require_name(name, "a vendor")
    if name == selection.AUTO:
        raise UsageError(
            f"a vendor cannot be called {name!r}: '--vendor auto' chooses the only available vendor",
            hint="choose another name",
        )
    for entry in installed.vendors():
        if entry.name == name:
            raise UsageError(f"{entry} is installed already", hint="choose another name, or change that plugin")


def require_name(name: str, who: str) -> None:
    """Raise :class:`UsageError` unless ``name`` can be that of ``who`` and of a Python package."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError(
            f"{who} cannot be called {name!r}",
            hint="use a-z, 0-9 and _; a name begins with a letter, does not end with _, and is not a Python keyword",
        )


def _render_all(
    project: Path, templates: Path, variables: Mapping[str, str], shared: Sequence[str]
) -> tuple[Path, ...]:
    environment = Environment(
        loader=FileSystemLoader([templates, TEMPLATES]),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    # A string literal of JSON is also one of Python and TOML.
    environment.filters["literal"] = functools.partial(json.dumps, ensure_ascii=False)
    major, minor = chipperf.__version__.split(".")[:2]
    # The versions with the same hooks.
    variables = {**variables, "compatible_versions": f">={major}.{minor},<{int(major) + 1}"}
    own = {path.relative_to(templates): path for path in templates.rglob("*") if path.is_file()}
    files = []
    for source, template in sorted({**own, **{Path(name): TEMPLATES / name for name in shared}}.items()):
        text = template.read_text(encoding="utf-8")
        if template.suffix == ".j2":
            text = environment.get_template(source.as_posix()).render(variables)
        file = Path(str(source).removesuffix(".j2").replace("NAME", variables["name"]))
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text(text, encoding="utf-8")
        files.append(file)
    return tuple(files)
