"""``perf doctor``: whether this machine can train, with which vendor, and which ``perf`` this is."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import chipperf
from chipperf import catalogue
from chipperf.cli.listing import JSON_OPTION, print_json
from chipperf.errors import PerfError
from chipperf.probe import ProbeOutcome, probe_vendors
from chipperf.records.environment import read_distributions
from chipperf.session import bind
from chipperf.specification import REQUIRED_HOOKS

if TYPE_CHECKING:
    from chipperf.catalogue import PluginEntry


def doctor(as_json: bool = JSON_OPTION) -> None:
    """Say for every vendor whether its devices are here, and what stands in the way of training.

    Example: perf doctor
    """
    findings = _examine()
    if as_json:
        print_json(findings)
        return
    typer.echo(f"chipperf {findings['chipperf']}, Python {findings['python']}, {findings['platform']}")
    typer.echo(
        f"perf on PATH: {findings['perf']['on_path']}" + ("" if findings["perf"]["is_this"] else " - not this one")
    )
    versions = ", ".join(f"{name} {version}" for name, version in findings["distributions"].items())
    typer.echo(f"installed: {versions}")
    for vendor in findings["vendors"]:
        state = "available" if vendor["available"] else "not available"
        typer.echo(f"\n{vendor['name']} ({vendor['distribution']}): {state}: {vendor['reason']}")
        for device in vendor["devices"]:
            typer.echo(f"  device {device['index']}: {device['name']} {device['uuid'] or ''}".rstrip())
        for name, value in vendor["visible_devices"].items():
            typer.echo(f"  {name}={value}")
        if vendor["trains"] is not True:
            typer.echo(f"  cannot train: {vendor['trains']}")
    for warning in findings["warnings"]:
        typer.echo(f"\nwarning: {warning}")


def _examine() -> dict[str, Any]:
    entries = catalogue.vendors()
    names = [entry.name for entry in entries]
    unambiguous = [entry for entry in entries if names.count(entry.name) == 1]
    on_path = shutil.which("perf")
    is_this = on_path is not None and Path(on_path).resolve().parent == Path(sys.executable).parent.resolve()
    warnings = [
        f"several distributions provide vendor {name!r}: uninstall all but one"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if not is_this:
        warnings.append(
            f"'perf' on PATH is {on_path or 'missing'}, not this program: activate the environment, or type 'chipperf'"
        )
    if find_spec("torch") is None:
        warnings.append("torch is not installed: 'perf train' needs chipperf[train] or the vendor's own build of torch")
    return {
        "chipperf": chipperf.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "perf": {"on_path": on_path, "is_this": is_this},
        "distributions": {item.name: item.version for item in read_distributions()},
        "vendors": [_describe(outcome) for outcome in probe_vendors(unambiguous)],
        "warnings": warnings,
    }


def _describe(outcome: ProbeOutcome) -> dict[str, Any]:
    entry = outcome.entry
    return {
        "name": entry.name,
        "distribution": entry.source,
        "available": outcome.available,
        "reason": outcome.reason,
        "driver": outcome.result.driver_version if outcome.result else None,
        "devices": [asdict(device) for device in outcome.result.devices] if outcome.result else [],
        **_inspect(entry),
    }


def _inspect(entry: PluginEntry) -> dict[str, Any]:
    """Return what the plugin says of itself; ``trains`` is True or the reason why not."""
    try:
        session = bind(entry, purpose="inspect")
    except PerfError as error:
        return {"visible_devices": {}, "trains": error.message}
    info = session.vendor_info()
    visible = {name: os.environ[name] for name in info.visible_devices_env if name in os.environ}
    missing = sorted(hook for hook in REQUIRED_HOOKS if not session.has(hook))
    return {"visible_devices": visible, "trains": f"the plugin lacks {', '.join(missing)}" if missing else True}
