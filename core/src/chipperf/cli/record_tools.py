"""``perf record-tools``: keep the output of a vendor's management tools as test data for the plugin's parsers."""

from __future__ import annotations

import json
import platform
import re
from datetime import datetime, timezone
from pathlib import Path

import typer

from chipperf.cli.command_options import complete_vendors
from chipperf.errors import CheckFailed, UsageError
from chipperf.hardware import run_tool
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.plugin.types import ToolCommand
from chipperf.records.files import write_atomically

_TIMEOUT_S = 30.0
_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"


def record_tools(
    vendor: str = typer.Argument(..., help="Vendor whose tools are run.", autocompletion=complete_vendors),
    out: Path = typer.Option(..., "--out", help="Directory to write to; must be new or empty."),
) -> None:
    """Record the output of a vendor's query tools, with UUIDs, serial numbers and the host's name replaced.

    Example: perf record-tools acme --out tests/fixtures/a1-driver-3
    """
    session = bind(installed.find_vendor(vendor), purpose="inspect")
    commands = session.tool_commands()
    if not commands:
        raise UsageError(f"{session.entry} lists no tools", hint="the plugin has to implement perf_tool_commands")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty directory", hint="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    anonymous = Anonymizer(commands)
    entries = [_record(command, out, anonymous) for command in commands]
    manifest = {
        "vendor": vendor,
        "plugin": session.entry.source,
        "recorded_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commands": entries,
    }
    write_atomically(out / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    problems = [f"{entry['name']}: {entry['problem']}" for entry in entries if entry["problem"]]
    complete = len(entries) - len(problems)
    if not complete:
        for file in out.iterdir():
            file.unlink()
        out.rmdir()
        raise CheckFailed("; ".join(problems), hint=f"run this where the tools of {vendor} are; nothing was recorded")
    typer.echo(f"{complete} of {len(entries)} outputs are in {out}; read them before you publish them")
    if problems:
        raise CheckFailed("; ".join(problems), hint="the manifest lists them; the others are complete")


class Anonymizer:
    """Replaces texts that identify a machine. Equal texts get equal substitutes of the same length."""

    def __init__(self, commands: tuple[ToolCommand, ...]) -> None:
        patterns = [pattern for command in commands for pattern in command.private_patterns]
        host = platform.node()
        # One after another: a pattern may begin with flags.
        self._patterns = [re.compile(each) for each in (_UUID, *patterns, *([re.escape(host)] if host else []))]
        self._substitutes: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Return ``text`` with all private texts replaced. Layout and column widths stay the same."""
        for pattern in self._patterns:
            text = pattern.sub(self._substitute, text)
        return text

    def _substitute(self, match: re.Match[str]) -> str:
        found = match.group()
        if found not in self._substitutes:
            digits = iter(f"{len(self._substitutes) + 1:0{sum(char.isalnum() for char in found)}d}")
            self._substitutes[found] = "".join(next(digits) if char.isalnum() else char for char in found)
        return self._substitutes[found]


def _record(command: ToolCommand, out: Path, anonymous: Anonymizer) -> dict[str, object]:
    output = run_tool(command.argv, timeout_s=_TIMEOUT_S)
    file = f"{command.name}.txt" if output.stdout else None
    if file:
        write_atomically(out / file, anonymous(output.stdout))
    problem = None if output.problem is None else anonymous(output.problem)
    return {"name": command.name, "argv": list(command.argv), "file": file, "problem": problem}
