"""Batch scripts for Slurm and their submission."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import chipperf
from chipperf.errors import PluginError, UsageError
from chipperf.hardware import run_tool
from chipperf.run.programs import program

_TEMPLATES = Path(__file__).parent.parent / "templates"
_SBATCH_TIMEOUT_S = 60.0


def batch_script(
    cases: Sequence[str],
    arguments: Sequence[str],
    *,
    nodes: int,
    nproc: int,
    directory: Path,
    options: Sequence[str] = (),
) -> str:
    """Return a script that trains cases one after another. A failed case does not stop the script.

    The ``arguments`` of ``perf train`` hold for all cases, on ``nodes`` machines with ``nproc`` processes each. The
    runs and the job's log go below ``directory``, on storage that all machines share. ``options`` are those of
    ``sbatch``, as on its command line; one that does not fit on one comment line is a :class:`UsageError`.
    """
    for option in options:
        if "\n" in option or not option.startswith("-"):
            raise UsageError(f"{option!r} is not an option of sbatch", hint="for example --sbatch=--account=NAME")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    steps = [
        {
            "command": shlex.join([*program("chipperf"), "train", case, *arguments]),
            "out": shlex.quote(str(directory / case)),
        }
        for case in cases
    ]
    return environment.get_template("slurm.sbatch.j2").render(
        version=chipperf.__version__,
        name="perf-" + "-".join(cases),
        nodes=nodes,
        nproc=nproc,
        log=str(directory / "slurm-%j.log").replace(" ", r"\ "),
        options=list(options),
        steps=steps,
    )


def submit(script: Path) -> str:
    """Submit a script to Slurm, and return the number of the job; a :class:`PluginError` says why there is none."""
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise PluginError("sbatch is not installed here", hint="run this on a machine that submits jobs, or --dry-run")
    output = run_tool([sbatch, "--parsable", str(script)], timeout_s=_SBATCH_TIMEOUT_S)
    if output.problem:
        raise PluginError(
            f"sbatch accepted no job: {output.problem}", hint="sinfo lists partitions, --dry-run prints the script"
        )
    return output.stdout.strip().partition(";")[0]
