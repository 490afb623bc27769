"""The plan of a suite: all runs of its file, checked before the first one starts."""

from __future__ import annotations

import hashlib
from itertools import product
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from chipperf.cases.config import ConfigFile, read_config_file, resolve
from chipperf.cases.registry import find_case
from chipperf.durations import parse_duration
from chipperf.errors import ConfigError, DataError, PerfError
from chipperf.plugin import installed, selection
from chipperf.records.repeats import repeat_seeds
from chipperf.suites.file import MatrixRow, RunOptions, parse_case_key, read_suite_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.precisions import Precision
    from chipperf.records.schema import Setting
    from chipperf.suites.file import RunEntry


class PlannedRun(BaseModel):
    """One run of a suite with all its options.

    Attributes:
        configuration: Name of the configuration, which all its repeats share, and of their directory.
        repeat: Number of the repeat, from 1.
        topology: Machines x devices, for example ``1x8``.
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
        return int(self.topology.partition("x")[0])


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
        options = _overlaid(file.defaults, entry)
        for row, precision in product(_rows(entry, options, place), options.precision):
            ignored.update(dict.fromkeys(row.ignored))
            name = "-".join(part for part in (entry.name, row.case, precision, row.topology) if part)
            try:
                configuration = _configuration(name, row, precision, options, path.parent)
            except PerfError as error:
                raise type(error)(f"{place}: {error.message}", hint=error.hint) from error
            if name in origins:
                raise ConfigError(
                    f"{place} plans {name}, as {origins[name]} does", hint="give one of the two a name of its own"
                )
            origins[name] = f"[[run]] {number}"
            runs += configuration
    return SuitePlan(runs=tuple(runs), ignored=tuple(ignored))


def option_arguments(options: Mapping[str, object]) -> list[str]:
    """Return options of ``perf train`` as arguments.

    Args:
        options: Value by name without dashes; ``None`` if the option is not given, a list if it is repeated.
    """
    arguments = []
    for name, value in options.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            items = value if isinstance(value, list | tuple) else [value]
            arguments += [f"--{name}={item}" for item in items]
    return arguments


def _overlaid(below: RunOptions, above: RunOptions) -> RunOptions:
    """Return the options of both. The options of ``above`` take precedence, those in ``set`` key by key."""
    given = {key: getattr(above, key) for key in above.model_fields_set & RunOptions.model_fields.keys()}
    return below.model_copy(update=given | {"set": below.set | above.set})


def _rows(entry: RunEntry, options: RunOptions, place: str) -> list[MatrixRow]:
    if entry.case is not None:
        pairs = product(entry.case, options.topology)
        return [MatrixRow(case, topology, options.repeats, options.data) for case, topology in pairs]
    rows = [parse_case_key(text, f"{place}: case_keys") for text in entry.case_keys or ()]
    return [row._replace(data=row.data or options.data) for row in rows]


def _configuration(
    name: str, row: MatrixRow, precision: Precision, options: RunOptions, root: Path
) -> list[PlannedRun]:
    """Return the repeats of one configuration. Refuse everything that ``perf train`` would refuse."""
    case = find_case(row.case)
    if options.vendor is not None and options.vendor != selection.AUTO:
        installed.find_vendor(options.vendor)
    if options.budget is not None:
        parse_duration(options.budget, "budget")
    paths = (row.data, options.config)
    data, config = (None if path is None else (root / path.expanduser()).resolve() for path in paths)
    if data is not None and not data.is_dir():
        raise DataError(f"the dataset directory {data} does not exist", hint="paths are relative to the suite's file")
    file = read_config_file(config) if config else ConfigFile(hyperparameters={}, environment={})
    own = options.set if options.seed is None else options.set | {"seed": options.seed}
    values = resolve(case, preset=options.preset, file=file.hyperparameters, command_line=own).values
    nnodes, nproc = row.topology.split("x")
    arguments = option_arguments(
        {
            "precision": precision,
            "nproc": nproc,
            "nnodes": None if nnodes == "1" else nnodes,
            "preset": options.preset,
            "vendor": options.vendor,
            "data": data,
            "config": config,
            "max-epochs": options.max_epochs,
            "max-steps": options.max_steps,
            "budget": options.budget,
            "device-check": None if options.device_check else False,
            "set": [f"{key}={_text(value)}" for key, value in options.set.items() if key != "seed"],
        }
    )
    config_sha256 = hashlib.sha256(config.read_bytes()).hexdigest() if config else None
    return [
        PlannedRun(
            configuration=name,
            repeat=repeat,
            case=row.case,
            precision=precision,
            topology=row.topology,
            seed=seed,
            arguments=(row.case, *arguments, f"--seed={seed}"),
            config_sha256=config_sha256,
        )
        for repeat, seed in enumerate(repeat_seeds(values.seed, row.repeats), start=1)
    ]


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
