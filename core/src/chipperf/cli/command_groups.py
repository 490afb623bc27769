"""Groups of commands: imported on demand, so that each command loads only what it needs, or with a default command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pkgutil import resolve_name
from typing import Any, Final

import typer
from typer.core import TyperGroup

from chipperf.cli.command_options import common_options

_UNCUT: Final = 10**6
"""Width that every summary fits into."""

_TYPE_OF_MANY: Final = re.compile(r" <list\[\w+\]>")


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Write arguments and options below the titles of their panels, in the order of their declaration."""

    def panel(parameter: Any) -> str:
        kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
        return getattr(parameter, "rich_help_panel", None) or kind

    sections: dict[str, list[Any]] = {}
    for parameter in command.get_params(ctx):
        sections.setdefault(panel(parameter), []).append(parameter.get_help_record(ctx))
    for title, records in sections.items():
        with formatter.section(title):
            # The dots behind an argument's name say that there may be several.
            formatter.write_dl([(_TYPE_OF_MANY.sub("", names), text) for names, text in filter(None, records)])


@cache
def import_command(name: str, place: str) -> Any:
    """Return the command that ``module:attribute`` of this package defines: a function or a Typer."""
    found = resolve_name(f"{__package__}.{place}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name)
    else:
        app.command(name)(found)
    # get_group makes a group: typer would turn a single command into the program itself, without its name.
    command = typer.main.get_group(app).commands[name]
    _complete_command(command)
    return command


def _complete_command(command: Any) -> None:
    """Give a command and all below it the common options and a help that is neither cut nor in Python's words."""
    command.params.extend(common_options())
    # A short help of its own is not cut.
    command.short_help = command.get_short_help_str(_UNCUT)
    parts = getattr(command, "commands", {})
    if not parts:
        command.format_options = partial(_write_options, command)
    for part in parts.values():
        _complete_command(part)


def lazy_group(places: Mapping[str, tuple[str, str]], purposes: Mapping[str, Sequence[str]]) -> type[TyperGroup]:
    """Return the class of a group that imports its commands on demand.

    Args:
        places: Places as in :func:`import_command`, and summaries, by the names of the commands.
        purposes: Names of the commands by the titles under which the help lists them.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            # Only the names, which typer suggests for an unknown one.
            self.commands = dict.fromkeys(places)  # type: ignore[assignment]
            self.params.extend(common_options())

        def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
            return import_command(cmd_name, places[cmd_name][0]) if cmd_name in places else None

        def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
            """Write names and summaries by purpose. Nothing is imported for them."""
            widest = max(map(len, places))
            for purpose, names in purposes.items():
                with formatter.section(purpose):
                    formatter.write_dl([(name.ljust(widest), places[name][1]) for name in names])

    return LazyGroup


def group_with_default(default: str) -> type[TyperGroup]:
    """Return the class of a group that passes arguments that do not begin with a command to its default command."""

    class DefaultCommandGroup(TyperGroup):
        default_command = default

        def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            if not args or args[0] not in (*self.commands, *ctx.help_option_names):
                args = [default, *args]
            return super().parse_args(ctx, args)

        def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
            """Write the default command's help, then the names of all commands."""
            command: Any = self.commands[default]
            with command.make_context(ctx.info_name, [], parent=ctx.parent, resilient_parsing=True) as own:
                command.format_help(own, formatter)
            self.format_commands(ctx, formatter)

    return DefaultCommandGroup
