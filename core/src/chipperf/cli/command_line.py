"""The parameters that the user typed on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


# Any: some versions of typer have their own copy of click's classes.
def typed_parameters(context: Any) -> Iterator[Any]:
    """Yield the parameters of a command that are on its command line, in the command's order.

    Args:
        context: Click's context of the command.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            yield parameter
