"""Groups of commands: imported on demand, so that each command loads only what it needs, or with a default command."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pkgutil import resolve_name
from textwrap import shorten
from typing import Any

import typer
from typer.core import TyperGroup


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
    return typer.main.get_group(app).commands[name]


def lazy_group(places: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """Return the class of a group with these commands: places as in :func:`import_command`, and summaries."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            # Only the names, which typer suggests for an unknown one.
            self.commands = dict.fromkeys(places)  # type: ignore[assignment]

        def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
            return import_command(cmd_name, places[cmd_name][0]) if cmd_name in places else None

        def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
            """Write names and summaries. Nothing is imported for them."""
            width = formatter.width - 6 - max(map(len, places))
            rows = [(name, shorten(summary, width, placeholder="...")) for name, (_, summary) in places.items()]
            with formatter.section("Commands"):
                formatter.write_dl(rows)

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
