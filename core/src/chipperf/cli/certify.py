"""``perf contract certify``: compare a case's first steps on a vendor's device with the CPU reference."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from chipperf.cases.registry import case_names, find_case
from chipperf.cli.live import run_progress
from chipperf.contract.isolation import ForkServer
from chipperf.errors import CheckFailed, PluginError, UsageError
from chipperf.plugin import selection
from chipperf.plugin.session import bind
from chipperf.plugin.types import EnvironmentSettings, Rank
from chipperf.precisions import DEFAULT_PRECISION, PRECISIONS, Precision, either, precision_of
from chipperf.records.files import write_atomically
from chipperf.report.figures import require_matplotlib

if TYPE_CHECKING:
    from chipperf.contract.certificate import Certificate
    from chipperf.plugin.installed import PluginEntry

_TIMEOUT_S: Final = 24 * 3600.0
"""Only a device that hangs needs longer. The user can interrupt earlier."""


class Size(str, Enum):
    """Size of the samples."""

    TINY = "tiny"
    REAL = "real"


def certify(
    vendor: str = typer.Option(..., "--vendor", help="Vendor plugin to certify."),
    case: list[str] = typer.Option([], "--case", help="Only this case; may be repeated. [all]"),
    size: Size = typer.Option(Size.TINY, "--size", help="Size of the samples: tiny, or real as in the benchmark."),
    steps: int = typer.Option(20, "--steps", min=1, help="Optimizer steps to compare."),
    precision: str = typer.Option(DEFAULT_PRECISION, "--precision", help=f"{either(PRECISIONS)}."),
    data: Path = typer.Option(None, "--data", help="Dataset directory of the case; a generated sample if not given."),
    out: Path = typer.Option(..., "--out", help="Directory for equivalence.json and equivalence.png."),
) -> None:
    """Certify that the first steps of training follow the CPU reference in fp32.

    Both sides start from the same weights and take the same batches; loss and gradients are compared after every step.
    Exit code 4 if a difference is larger than the precision allows.

    Example: perf contract certify --vendor cpu --case mobilenetv2 --out certificate
    """
    names = [find_case(name).name for name in case] or list(case_names())
    if data is not None and (len(names) != 1 or not data.is_dir()):
        raise UsageError("--data names the directory of one case's dataset", hint="give one --case and a directory")
    require_matplotlib("contract")
    entry = selection.select_vendor(vendor).entry
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}", hint="choose another --out") from error
    certificate = _compare(
        entry,
        cases=names,
        size=size.value,
        steps=steps,
        precision=precision_of(precision),
        data=str(data.resolve()) if data else None,
    )
    _write(certificate, out)
    for comparison in certificate.comparisons:
        typer.echo(comparison.summary)
    typer.echo(f"wrote {out / 'equivalence.json'} and {out / 'equivalence.png'}", err=True)
    if not certificate.within:
        raise CheckFailed(
            f"{entry} does not follow the CPU reference in {precision}",
            hint="'perf contract run' checks operators and precision one by one",
        )


def _compare(entry: PluginEntry, *, precision: Precision, cases: list[str], **request: object) -> Certificate:
    from chipperf.contract.certificate import Certificate

    settings = EnvironmentSettings(case=cases[0], precision=precision)
    wanted = {variable.name: variable.value for variable in bind(entry).environment(Rank(), settings)}
    with tempfile.TemporaryDirectory(prefix="chipperf-certify-") as scratch:
        progress = Path(scratch) / "progress.json"
        arguments = {
            "entry": asdict(entry),
            "cases": cases,
            "precision": precision,
            "progress": str(progress),
            **request,
        }
        # The user's settings take precedence, as in a run.
        server = ForkServer({**wanted, **os.environ})
        with closing(server), run_progress(progress, "certify"):
            outcome = server.call("chipperf.contract.equivalence:certify", arguments, timeout_s=_TIMEOUT_S)
    if outcome.fault:
        last_words = f"; its last words: {outcome.output.splitlines()[-1]}" if outcome.output else ""
        raise PluginError(
            f"{entry}: the comparison ended early: {outcome.fault}{last_words}",
            hint="'perf contract run' finds out which part of the plugin is at fault",
        )
    return Certificate.model_validate(outcome.value)


def _write(certificate: Certificate, directory: Path) -> None:
    from chipperf.contract.certificate import write_plot

    write_atomically(directory / "equivalence.json", certificate.model_dump_json(indent=2) + "\n")
    write_plot(certificate, directory / "equivalence.png")
