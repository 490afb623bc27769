"""R: checks of the record of a real run on the vendor's device."""

from __future__ import annotations

import getpass
import os
import platform
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from chipperf.contract.check import NotRun, check, fail, not_run_on, require
from chipperf.contract.devices import TRAINED_CASE, training_command
from chipperf.contract.isolation import patient
from chipperf.errors import PerfError
from chipperf.languages import LANGUAGES
from chipperf.records.schema import Record
from chipperf.records.store import read_record, record_text
from chipperf.report.render import render_report, template_directory
from chipperf.run.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.contract.plugin_under_test import PluginUnderTest

_STEPS: Final = 8
_RUN_TIMEOUT_S: Final = 540.0
_QUOTED_CHARACTERS: Final = 600

_USER: Final = "contract_user_7f3a"
"""User name in the run's environment. The checks search for it and for the real user name."""

_GENERIC: Final = frozenset({"localhost", "root"})
"""Names of machines and users that identify no one."""

_LEAST_LENGTH: Final = 3

_ABSOLUTE_PATH: Final = re.compile(r"(?:(?<![\w/.<])|(?<=://))/(?!sys/|proc/|dev/)[\w.+@-]+/[\w.+@/-]+")
"""Matches an absolute path, except for the kernel's interfaces, which are the same on every machine."""


@check("R5", level=2, fault="the record has values that cannot be stored or read again, or the run does not complete")
def record_is_valid(subject: PluginUnderTest) -> None:
    """A short run completes; its record is valid, names the plugin, and stays the same when read and rewritten."""
    directory = _run(subject)
    output = directory.path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
    words = " ".join(output.split())[-_QUOTED_CHARACTERS:]
    try:
        record = read_record(directory.record)
    except PerfError as error:
        fail(f"the run's record cannot be read: {error.message}; the run's last words: {words}")
    failure = record.status.failure
    if failure and failure.failure_class == NotImplementedError.__name__:
        raise NotRun(f"the device lacks an operator of training, see N1: {failure.message}")
    require(
        record.status.state == "completed",
        f"the run {record.status.state}: {failure.message if failure else 'no reason given'}; its last words: {words}",
    )
    text = directory.record.read_text(encoding="utf-8")
    require(
        record_text(Record.model_validate_json(text)) == text,
        "the record changes when it is read and written again: return plain numbers and strings from the hooks",
    )
    plugin, entry = record.vendor.plugin, subject.entry
    require(
        (record.vendor.name, plugin.name, plugin.version) == (entry.name, entry.distribution, entry.version),
        f"the record is of {record.vendor.name} ({plugin.name} {plugin.version}) instead of {entry}",
    )
    require(
        (record.kind == "simulated") == subject.session.simulated, f"the record calls itself {record.kind}, wrongly"
    )


@check(
    "R6", level=2, fault="the report cannot be published, because it contains names of users, machines or directories"
)
def record_gives_nobody_away(subject: PluginUnderTest) -> None:
    """Record and report contain no host name, user name or absolute path."""
    directory = _run(subject)
    with not_run_on(PerfError, "there is no record or report, see R5 and R3"):
        record = read_record(directory.record)
        templates = template_directory(subject.entry)
        reports = {
            f"the {language} report": render_report([record], language=language, vendor_templates=templates)
            for language in LANGUAGES
        }
    for place, text in (*_texts("record", record.model_dump(mode="json")), *reports.items()):
        quoted = " ".join(text.split())[:_QUOTED_CHARACTERS]
        for what, name in _names(subject):
            require(
                not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text),
                f"{place} contains the name of the {what}, {name!r}: {quoted}",
            )
        path = _ABSOLUTE_PATH.search(text)
        require(path is None, f"{place} contains the absolute path {path and path[0]!r}: {quoted}")


def _run(subject: PluginUnderTest) -> RunDirectory:
    """Return the directory of a short run of the real launcher. The checks share one run."""
    directory = RunDirectory(subject.workspace / "run")
    if directory.path.exists():
        return directory
    command = training_command(subject, directory.path, "--max-steps", str(_STEPS), images_per_class=4 * _STEPS)
    # The launcher must find the plugin in the same place as this process.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "USER": _USER, "LOGNAME": _USER}
    with (subject.workspace / "run.txt").open("w", encoding="utf-8") as output:
        try:
            subprocess.run(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                timeout=patient(_RUN_TIMEOUT_S),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            fail(
                f"a run of {_STEPS} steps of {TRAINED_CASE} with the preset tiny did not end within {error.timeout:g} s"
            )
    return directory


def _names(subject: PluginUnderTest) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of everything that record and report must not contain."""
    # A machine may have the name of the vendor, which a report contains.
    harmless = _GENERIC | {subject.entry.name, subject.entry.distribution, subject.info.device_type}
    host = platform.node()
    for what, name in (("host", host), ("host", host.partition(".")[0]), ("user", getpass.getuser()), ("user", _USER)):
        if len(name) >= _LEAST_LENGTH and name.casefold() not in harmless:
            yield what, name


def _texts(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(f"{place}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(f"{place}[{index}]", item)
