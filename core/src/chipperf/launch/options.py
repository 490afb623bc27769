"""The options of ``perf train``, parsed but not yet resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chipperf.cases.config import ConfigFile, read_config_file, resolve
from chipperf.cases.registry import find_case
from chipperf.precisions import DEFAULT_PRECISION
from chipperf.records.schema import Limits, Topology
from chipperf.run.plan import DEFAULT_HANG_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from chipperf.cases.base import Case
    from chipperf.cases.config import Resolved
    from chipperf.launch.launcher_info import LauncherInfo
    from chipperf.precisions import Precision
    from chipperf.records.schema import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Options of one training run.

    Attributes:
        data: The dataset's directory; ``None`` selects the generated sample.
        vendor: Name of the vendor or ``auto``; ``None`` uses the environment's setting.
        settings: Hyperparameters from the command line.
        nproc: Number of processes on this machine. Unused if there is a ``launcher``, which has the number.
        launcher: This process as one of the run's launchers; ``None`` if it is the only launcher.
        device_check: Whether each device must finish a small kernel first.
        max_restarts: How many times dead processes are restarted.
        hang_timeout_s: Time without progress after which the run is stopped; ``None`` means no limit.
        out: The run's directory; ``None`` means ``runs/`` and the run's name.
    """

    case: str
    precision: Precision = DEFAULT_PRECISION
    preset: str = "full"
    data: Path | None = None
    vendor: str | None = None
    config: Path | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    nproc: int = 1
    launcher: LauncherInfo | None = None
    device_check: bool = True
    max_restarts: int = 0
    hang_timeout_s: float | None = DEFAULT_HANG_TIMEOUT_S
    out: Path | None = None

    @property
    def topology(self) -> Topology:
        """Machines and processes of the whole run."""
        return self.launcher.topology if self.launcher else Topology(nnodes=1, nproc_per_node=self.nproc)

    @property
    def processes_started_here(self) -> int:
        """Number of processes that this launcher starts on the devices that it sees.

        Under srun each process may see only its own device.
        """
        return 0 if self.launcher is not None and self.launcher.worker is not None else self.topology.nproc_per_node


class CheckedOptions(NamedTuple):
    """The case and the file of options that passed all checks that need no vendor.

    ``hyperparameters`` returns those of the run with the values of a ``vendor``; unfit ones are a :class:`ConfigError`.
    """

    case: Case
    file: ConfigFile
    hyperparameters: Callable[..., Resolved]


def check_options(options: TrainOptions) -> CheckedOptions:
    """Check the options as far as this is possible without a vendor; a :class:`PerfError` says what does not fit."""
    case = find_case(options.case)
    file = read_config_file(options.config) if options.config else ConfigFile(hyperparameters={}, environment={})
    if options.data is not None:
        case.data.require(options.data, "check --data; 'perf data check' explains")
    hyperparameters = partial(
        resolve, case, preset=options.preset, file=file.hyperparameters, command_line=options.settings
    )
    checked = CheckedOptions(case, file, hyperparameters)
    checked.hyperparameters()
    return checked
