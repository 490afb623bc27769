"""The plan of a suite: all runs of its file, checked before the first one starts."""

from __future__ import annotations

import hashlib
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict

from chipperf.cases.config import ConfigFile, read_config_file, resolve
from chipperf.cases.registry import find_case
from chipperf.durations import parse_duration
from chipperf.errors import ConfigError, DataError, PerfError
from chipperf.plugin import installed, selection
from chipperf.records.repeats import repeat_seeds
from chipperf.records.schema import Topology
from chipperf.suites.file import RunOptions, keys_of, read_suite_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.precisions import Precision
    from chipperf.records.schema import Setting
    from chipperf.suites.file import RunEntry

_DEFAULTS = RunOptions(precision=["fp32"], topology=["1x1"], repeats=1, preset="full", device_check=True)
"""Options that neither the entry nor ``[defaults]`` sets: the defaults of ``perf train``."""


class PlannedRun(BaseModel):
    """One run of a suite with all its options.

    Attributes:
        configuration: Name of the configuration, which all its repeats share, and of their directory.
        repeat: Number of the repeat, from 1.
        case: Name of the case.
        precision: Precision.
        topology: Machines x devices.
        seed: Seed.
        arguments: Arguments of ``perf train``, except ``--out``, the machine's number and the rendezvous.
        config_sha256: SHA-256 of the configuration file, if there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    configuration: str
    repeat: int
    case: str
    precision: str
    topology: str
    seed: int
    arguments: tuple[str, ...]
    config_sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the run, which is also the name of its directory in the suite's directory."""
        return f"{self.configuration}/repeat-{self.repeat}"

    @property
    def nnodes(self) -> int:
        """Number of machines that the run needs."""
        return _topology(self.topology).nnodes

    @property
    def nproc(self) -> int:
        """Number of processes on each machine."""
        return _topology(self.topology).nproc_per_node


class SuitePlan(BaseModel):
    """All runs of a suite in order, and the parts of its file that have no effect."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[PlannedRun, ...]
    ignored: tuple[str, ...]

    @property
    def nnodes(self) -> int:
        """Number of machines that the largest run needs."""
        return max(run.nnodes for run in self.runs)


def plan_suite(path: Path) -> SuitePlan:
    """Read a suite's file and expand its matrix.

    Configurations are in the order of the file. The repeats of a configuration follow each other.

    Raises:
        ConfigError: An entry is unknown, has the wrong type or is not possible. The message names the place.
        DataError: A dataset's directory does not exist.
    """
    file = read_suite_file(path)
    runs: list[PlannedRun] = []
    ignored: dict[str, None] = {}
    origins: dict[str, str] = {}
    for number, entry in enumerate(file.run, start=1):
        place = f"{path}: [[run]] {number}"
        options = _overlaid(_overlaid(_DEFAULTS, file.defaults), entry)
        for row in _rows(entry, options, place, ignored):
            for precision in options.precision or ():
                try:
                    configuration = _configuration(row, precision, options, entry.name, path.parent)
                except PerfError as error:
                    raise type(error)(f"{place}: {error.message}", hint=error.hint) from error
                name = configuration[0].configuration
                if name in origins:
                    raise ConfigError(
                        f"{place} plans {name}, as {origins[name]} does", hint="give one of the two a name of its own"
                    )
                origins[name] = f"[[run]] {number}"
                runs += configuration
    return SuitePlan(runs=tuple(runs), ignored=tuple(ignored))


def _overlaid(below: RunOptions, above: RunOptions) -> RunOptions:
    """Return the options of both. The options of ``above`` take precedence, those in ``set`` key by key."""
    given = {
        key: value
        for key in above.model_fields_set & set(RunOptions.model_fields)
        if (value := getattr(above, key)) is not None
    }
    given["set"] = {**below.set, **above.set}
    return RunOptions.model_construct(**{**{key: getattr(below, key) for key in RunOptions.model_fields}, **given})


class _Row(NamedTuple):
    """A configuration without its precision, from an entry or one of its FlagPerf keys."""

    case: str
    topology: str
    repeats: int
    data: Path | None


def _rows(entry: RunEntry, options: RunOptions, place: str, ignored: dict[str, None]) -> Iterator[_Row]:
    """Yield the entry's configurations without their precisions, and note the ignored parts of its keys."""
    if entry.case is not None:
        for case, topology in product(entry.case, options.topology or ()):
            yield _Row(case, topology, options.repeats or 1, options.data)
        return
    for key in keys_of(entry, place):
        ignored.update(dict.fromkeys(f"{key.text}: {text}" for text in key.ignored))
        yield _Row(key.case, f"{key.nnodes}x{key.nproc}", key.repeats, key.data or options.data)


def _configuration(
    row: _Row, precision: Precision, options: RunOptions, prefix: str | None, root: Path
) -> list[PlannedRun]:
    """Return the repeats of one configuration. Refuse everything that ``perf train`` would refuse."""
    chosen_case = find_case(row.case)
    topology = _topology(row.topology)
    if options.vendor is not None and options.vendor != selection.AUTO:
        installed.find_vendor(options.vendor)
    if options.budget is not None:
        parse_duration(options.budget, "budget")
    data = None if row.data is None else (root / row.data.expanduser()).resolve()
    if data is not None and not data.is_dir():
        raise DataError(f"the dataset directory {data} does not exist", hint="paths are relative to the suite's file")
    config = None if options.config is None else (root / options.config.expanduser()).resolve()
    file = read_config_file(config) if config else ConfigFile(hyperparameters={}, environment={})
    own: dict[str, Setting] = {**options.set}
    if options.seed is not None:
        own["seed"] = options.seed
    values = resolve(chosen_case, preset=options.preset or "full", file=file.hyperparameters, command_line=own).values
    fixed = [
        row.case,
        f"--precision={precision}",
        f"--nproc={topology.nproc_per_node}",
        *([f"--nnodes={topology.nnodes}"] if topology.nnodes > 1 else []),
        *_given(
            preset=options.preset,
            vendor=options.vendor,
            data=data,
            config=config,
            max_epochs=options.max_epochs,
            max_steps=options.max_steps,
            budget=options.budget,
        ),
        *([] if options.device_check else ["--no-device-check"]),
        *(f"--set={key}={_text(value)}" for key, value in options.set.items() if key != "seed"),
    ]
    return [
        PlannedRun(
            configuration="-".join(part for part in (prefix, row.case, precision, row.topology) if part),
            repeat=repeat,
            case=row.case,
            precision=precision,
            topology=row.topology,
            seed=seed,
            arguments=(*fixed, f"--seed={seed}"),
            config_sha256=hashlib.sha256(config.read_bytes()).hexdigest() if config else None,
        )
        for repeat, seed in enumerate(repeat_seeds(values.seed, row.repeats), start=1)
    ]


def _topology(label: str) -> Topology:
    nnodes, nproc = map(int, label.split("x"))
    return Topology(nnodes=nnodes, nproc_per_node=nproc)


def _given(**options: object) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
