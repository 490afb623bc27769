"""Writes docs/cli.md from the help of every command: ``python docs/generate_cli.py``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.cli.command_groups import import_command
from chipperf.cli.main import COMMANDS
from chipperf.errors import PerfError
from marked_list import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).with_name("cli.md")

INTRODUCTION = """\
# Command line

`python docs/generate_cli.py` makes this page from the help of the commands. `perf COMMAND --help` prints the same.

[Exit codes](../README.md#exit-codes) are the same for all commands. Every command takes `-h`, `-q` (print results,
warnings and errors only) and `-v` (also print the traceback behind an error).
"""


def page() -> str:
    """Return the content of docs/cli.md."""
    commands = [item for name, (place, _) in COMMANDS.items() for item in _all_of(f"perf {name}", _import(name, place))]
    rows = [f"| [`{name}`](#{name.replace(' ', '-')}) | {_summary(command)} |" for name, command in commands]
    table = "\n".join(["| Command | Does |", "| --- | --- |", *rows]) + "\n"
    return "\n".join([INTRODUCTION, table, *(_section(name, command) for name, command in commands)])


def _import(name: str, place: str) -> Any:
    try:
        return import_command(name, place)
    except ModuleNotFoundError as error:
        raise PerfError(f"the page needs every command, and perf {name} needs {error.name}") from error


def _all_of(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for part, subcommand in getattr(command, "commands", {}).items():
        yield from _all_of(f"{name} {part}", subcommand)


def _summary(command: Any) -> str:
    return markdown(inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " "))


def _section(name: str, command: Any) -> str:
    text = inspect.cleandoc(command.help or "")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    examples = [each.removeprefix("Example: ") for each in paragraphs if each.startswith("Example: ")]
    prose = [markdown(each) for each in paragraphs if not each.startswith("Example: ")]
    default = getattr(command, "default_command", None)
    parts = [
        f"## `{name}`",
        *prose,
        f"Without the name of one of its commands, this is `{name} {default}`." if default else "",
        "```sh\n{}\n```".format("\n".join(examples)) if examples else "",
        _table("Argument", [_row(each) for each in command.params if each.param_type_name == "argument"]),
        # The common options stand in the introduction; no command gets their values.
        _table(
            "Option", [_row(each) for each in command.params if each.param_type_name == "option" and each.expose_value]
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(parameter: Any) -> str:
    names = "`, `".join([*parameter.opts, *parameter.secondary_opts])
    placeholder = f" {parameter.metavar}" if parameter.metavar and parameter.param_type_name == "option" else ""
    return f"| `{markdown(names + placeholder)}` | {markdown(parameter.help or '')} | {_default(parameter)} |"


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", True)
    if callable(default) or not shown or default is None or default is False or default in ([], ()):
        return ""
    if default is True:
        return f"`{parameter.opts[0]}`"
    return f"`{getattr(default, 'value', default)}`"


def _table(title: str, rows: list[str]) -> str:
    return "\n".join([f"| {title} | Meaning | Default |", "| --- | --- | --- |", *rows]) if rows else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
