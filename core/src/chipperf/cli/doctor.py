"""``perf doctor``: check whether this machine can train, with which vendors, and with which ``perf``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

import chipperf
from chipperf.cases.registry import ENTRY_POINT_GROUP as CASE_GROUP
from chipperf.cli.command_options import JSON_OPTION
from chipperf.cli.output import print_json
from chipperf.errors import DOCUMENTATION, PluginError, did_you_mean
from chipperf.plugin import installed
from chipperf.plugin.installed import PluginEntry
from chipperf.plugin.probe_process import PROBE_TIMEOUT_S, ask_all
from chipperf.plugin.session import require_recent_torch
from chipperf.plugin.types import PluginDescription, ProbeResult
from chipperf.records.environment import read_distributions
from chipperf.run.device_check import DEFAULT_TIMEOUT_S, inspect_device

_GROUPS = (installed.VENDOR_GROUP, installed.OBSERVER_GROUP, CASE_GROUP)


def doctor(
    compute: bool = typer.Option(
        False, "--compute", help="Also load each available vendor's stack and compute on its first device."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """Say for every vendor whether its devices are here, and what prevents training.

    Example: perf doctor --compute
    """
    findings = _examine(compute)
    if as_json:
        print_json(findings)
    else:
        _print(findings)


def _print(findings: Mapping[str, Any]) -> None:
    typer.echo(f"chipperf {findings['chipperf']}, Python {findings['python']}, {findings['platform']}")
    not_this = "" if findings["perf"]["is_this"] else ", not this one"
    typer.echo(f"perf on PATH: {findings['perf']['on_path']}{not_this}")
    typer.echo("installed: " + ", ".join(f"{name} {version}" for name, version in findings["distributions"].items()))
    for vendor in findings["vendors"]:
        state = "available" if vendor["available"] else "not available"
        typer.echo(f"\n{vendor['name']} ({vendor['distribution']}): {state}: {vendor['reason']}")
        if vendor["driver"]:
            typer.echo(f"  driver {vendor['driver']}")
        for device in vendor["devices"]:
            typer.echo(f"  device {device['index']}: {device['name']} {device['uuid'] or ''}".rstrip())
        for name, value in vendor["visible_devices"].items():
            typer.echo(f"  {name}={value}")
        if vendor["trains"] is not True:
            typer.echo(f"  cannot train: {vendor['trains']}")
        for name, value in vendor["compute"].items():
            typer.echo(f"  {name}: {value}")
    for warning in findings["warnings"]:
        typer.echo(f"\nwarning: {warning}")
    typer.echo(f"\nhow to install: {DOCUMENTATION}/installing.md")
    typer.echo(f"how to write a plugin: {DOCUMENTATION}/plugin-guide.md")


def _examine(compute: bool) -> dict[str, Any]:
    entries = installed.vendors()
    names = [entry.name for entry in entries]
    unambiguous = [entry for entry in entries if names.count(entry.name) == 1]
    on_path = shutil.which("perf")
    is_this = on_path is not None and Path(on_path).resolve().parent == Path(sys.executable).parent.resolve()
    probed = dict(ask_all(unambiguous, "probe", ProbeResult, timeout_s=PROBE_TIMEOUT_S))
    described = ask_all(unambiguous, "describe", PluginDescription)
    vendors = [_describe(entry, probed[entry], answer, compute) for entry, answer in described]
    warnings = [
        f"several distributions provide vendor {name!r}: uninstall all but one"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if find_spec("torch") is None:
        warnings.append(
            "torch is not installed: 'perf train' needs the vendor's own build of it, or chipperf[train], see "
            f"{DOCUMENTATION}/installing.md"
        )
    try:
        require_recent_torch()
    except PluginError as error:
        warnings.append(str(error))
    warnings += _metadata_warnings()
    for vendor in vendors:
        settings = vendor["visible_devices"]
        if len(set(settings.values())) > 1:
            listed = ", ".join(f"{name}={value}" for name, value in settings.items())
            warnings.append(f"{vendor['name']}: {listed} contradict each other; {next(iter(settings))} wins")
    if not is_this:
        warnings.append(f"'perf' on PATH is {on_path or 'missing'}, not this program: type 'chipperf'")
    return {
        "chipperf": chipperf.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "perf": {"on_path": on_path, "is_this": is_this},
        "distributions": {item.name: item.version for item in read_distributions()},
        "vendors": vendors,
        "warnings": warnings,
    }


def _describe(
    entry: PluginEntry, probed: ProbeResult | PluginError, answer: PluginDescription | PluginError, compute: bool
) -> dict[str, Any]:
    found = ProbeResult(available=False, reason=str(probed)) if isinstance(probed, PluginError) else probed
    visible: dict[str, str] = {}
    trains: bool | str = True
    if isinstance(answer, PluginError):
        trains = answer.message
    else:
        info, lacks = answer
        visible = {name: os.environ[name] for name in info.visible_devices_env if name in os.environ}
        trains = f"the plugin lacks {', '.join(lacks)}" if lacks else True
    computed = {}
    if compute and found.available and trains is True:
        inspection = inspect_device(entry.name, os.environ, DEFAULT_TIMEOUT_S)
        computed = {name: value for name, value in inspection.runtime.items() if value}
        computed["compute"] = "; ".join(filter(None, (inspection.fault, inspection.hint))) or "ok"
    return {
        "name": entry.name,
        "distribution": entry.source,
        "available": found.available,
        "reason": found.reason,
        "driver": found.driver_version,
        "devices": [asdict(device) for device in found.devices],
        "visible_devices": visible,
        "trains": trains,
        "compute": computed,
    }


def _metadata_warnings() -> list[str]:
    """Return warnings about entry points in unknown groups and about entry points whose module does not exist."""
    warnings = []
    for entry in installed.entries():
        who, module = f"{entry.source}: entry point {entry.name!r}", entry.value.partition(":")[0]
        if entry.group not in _GROUPS:
            near = did_you_mean(entry.group, _GROUPS)
            warnings.append(f"{who} is in group {entry.group!r}, which nothing reads{near}")
        elif find_spec(module.partition(".")[0] or "?") is None:
            warnings.append(f"{who} names {module}, which is gone: stale metadata, reinstall the distribution")
    return warnings
