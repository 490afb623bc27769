"""A group of commands that is a command itself: ``perf report RUN...`` beside ``perf report import FILE...``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from typer.core import TyperGroup

if TYPE_CHECKING:
    import typer


class DefaultCommandGroup(TyperGroup):
    """Takes arguments that begin with none of its commands for those of its default command."""

    default_command: ClassVar[str]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the default command before arguments that begin with none."""
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the default command's help, then the names of all commands."""
        command: Any = self.commands[self.default_command]
        with command.make_context(ctx.info_name, [], parent=ctx.parent, resilient_parsing=True) as own:
            command.format_help(own, formatter)
        self.format_commands(ctx, formatter)
