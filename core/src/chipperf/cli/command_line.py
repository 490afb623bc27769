"""What the user typed, as against what took its default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


# typer's versions differ in whose click these are.
def typed_parameters(context: Any) -> Iterator[Any]:
    """Yield the parameters of a command that its command line gives, in the order in which the command has them.

    Args:
        context: Click's context of the command.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            yield parameter
