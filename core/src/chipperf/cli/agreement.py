"""The check that nothing is published of a record that the files of its run contradict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from chipperf.errors import CheckFailed
from chipperf.visible import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from chipperf.records.schema import Record
    from chipperf.records.store import StoredRecord
    from chipperf.verify.evidence import Examination


def require_agreement(
    runs: Iterable[StoredRecord], examine: Callable[[Record, Path], Examination], *, hint: str
) -> None:
    """Check that ``examine`` finds no contradiction in records and the files of their runs; name those that it finds.

    Raises:
        CheckFailed: There is one.
    """
    found = [f"{run.file}: {text}" for run in runs for text in examine(run.record, run.file.parent).contradictions]
    for text in found:
        typer.echo(text, err=True)
    if found:
        raise CheckFailed(f"{counted(len(found), 'contradiction')} in the records and with their runs", hint=hint)
