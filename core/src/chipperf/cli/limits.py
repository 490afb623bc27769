"""``perf limits``: measure what the machine's cards can do at most."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import typer

from chipperf.cli.command_options import JSON_OPTION, vendor_option
from chipperf.cli.live import run_progress
from chipperf.cli.output import print_table
from chipperf.durations import format_duration
from chipperf.limits.limits_job import measure_limits, plan_limits
from chipperf.plugin.selection import select_vendor
from chipperf.records.machine_limits import AllReduceLimits, CardLimits, MachineLimits, Rate, read_limits, slowest_cards
from chipperf.records.schema import LIMITS_NAME, Missing
from chipperf.visible import visible


def limits(
    vendor: str | None = vendor_option(),
    nproc: int | None = typer.Option(None, "--nproc", min=1, help="Cards and ranks. [all cards; 2 ranks on a CPU]"),
    device_check: bool = typer.Option(
        True, "--device-check/--no-device-check", help="Refuse busy cards, and let every card finish a small kernel."
    ),
    out: Path | None = typer.Option(None, "--out", help="Directory to write to. [limits-VENDOR and the time]"),
    show: Path | None = typer.Option(
        None, "--show", help="Print the limits in this directory, which were measured before."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Measure the most that the cards can do: products, memory, host links, all-reduce.

    Runs that end within a day and lie beside such a directory are shown with their shares of these limits. If a limit
    cannot be measured, the result has the reason.

    Example: perf limits --vendor cpu --out limits-today
    """
    if show is not None:
        found = read_limits(show)
    else:
        selection = select_vendor(vendor)
        job = plan_limits(selection, ranks=nproc, device_check=device_check)
        name = f"limits-{selection.entry.name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
        out = out or Path(name)
        found = measure_limits(job, out, showing=partial(run_progress, title="limits"))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    _print(found)
    if out is not None and show is None:
        typer.echo(f"limits: {out / LIMITS_NAME}, measured in {format_duration(round(found.seconds))}")


def _print(found: MachineLimits) -> None:
    rows = [row for card in found.cards for row in _rows(card)]
    print_table(("card", "limit", "median", "IQR", "details"), [*rows, *_of_all(found.all_reduce)])
    for name, (card, share) in slowest_cards(found).items():
        typer.echo(f"slowest card in {name}: card {card.card.rank}, {share:.1%} of the median card")
    for text in found.warnings:
        typer.echo(f"warning: {visible(text)}", err=True)


def _rows(card: CardLimits) -> Iterator[tuple[object, ...]]:
    number = card.card.rank
    for precision, product in card.products.items():
        details = f"{product.arithmetic}, {_shape(product.shape)}"
        if not isinstance(product.peak_flops_per_s, Missing):
            details += f", data sheet {product.peak_flops_per_s / 1e12:.4g} TFLOP/s"
        yield (number, f"products {precision}", *_shown(product.rate, 1e12, "TFLOP/s", details))
    for name, rate in (*card.memory.items(), *card.host_link.items()):
        yield (number, name.replace("_", " "), *_shown(rate, 1e9, "GB/s", ""))


def _of_all(found: AllReduceLimits | Missing) -> Iterator[tuple[object, ...]]:
    if isinstance(found, Missing):
        yield ("all", "all-reduce", *_shown(found, 1e9, "GB/s", ""))
        return
    for each in found.sizes:
        yield (f"{found.ranks} ranks", f"all-reduce {each.size_bytes} B", *_shown(each.rate, 1e9, "GB/s", "bus"))


def _shown(rate: Rate, scale: float, unit: str, details: str) -> tuple[str, str, str]:
    if isinstance(rate, Missing):
        return f"{rate.missing}: {rate.reason}", "", ""
    return f"{rate.median / scale:.4g} {unit}", f"{rate.iqr / scale:.2g}", details


def _shape(shape: tuple[int, int, int] | Missing) -> str:
    return "" if isinstance(shape, Missing) else "x".join(map(str, shape))
