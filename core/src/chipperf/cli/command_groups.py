"""Groups of commands: imported on demand, so that each command loads only what it needs, or with a default command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


class LazyCommands(Mapping[str, Any]):
    """Commands by name. Each is imported at its first use, from ``module:attribute``: a function or a Typer."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._imported: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._imported:
            module, _, attribute = self._places[name].partition(":")
            found = getattr(import_module(module), attribute)
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name)
            else:
                app.command(name)(found)
            # get_group makes a group: typer would turn a single command into the program itself, without its name.
            self._imported[name] = typer.main.get_group(app).commands[name]
        return self._imported[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def lazy_group(places: Mapping[str, str]) -> type[TyperGroup]:
    """Return the class of a group with these commands; see :class:`LazyCommands`."""

    class LazyGroup(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = LazyCommands(places)  # type: ignore[assignment]

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
