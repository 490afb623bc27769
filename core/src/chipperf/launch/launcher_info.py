"""The place of this process among the launchers of a run, from its options or from torchrun's or Slurm's variables."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from chipperf.errors import UsageError
from chipperf.hardware import run_tool
from chipperf.plugin.types import Rank
from chipperf.records.schema import Topology
from chipperf.run.ranks import rank_from_environment

_TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"
_SLURM_TASKS_VARIABLE = "SLURM_STEP_NUM_TASKS"
"""Variables that srun sets. The batch script that calls srun does not have them."""
_FIRST_SLURM_PORT = 20000
_SLURM_PORTS = 10000
_SCONTROL_TIMEOUT_S = 5.0

_JOINING = "start the same command on all machines; --rdzv is a free port that all of them can reach"
JOINING_STEP = "each task of the step has to run this command: 'srun perf train ...', or 'srun -n1 --pty' for a shell"


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherInfo:
    """One of the launchers that start a run together.

    Each machine has one launcher. If ``torchrun`` or ``srun`` started the processes, each process is a launcher.

    Attributes:
        index: Number of this launcher, from 0. Launcher 0 decides and writes the record.
        host: Name or address of the first launcher's machine, where the launchers meet.
        topology: Machines and processes of the whole run.
        worker: The only worker of this launcher if torchrun or srun started one launcher for each rank.
        torchrun_listens: True if torchrun's agent listens on the port, with a store of torch.
        joining: How the other launchers join the run, as a hint.
        is_shell: True for a task with a terminal (``srun --pty``). The other tasks probably run no launcher.
    """

    index: int
    count: int
    host: str
    port: int
    topology: Topology
    worker: Rank | None = None
    torchrun_listens: bool = False
    joining: str = _JOINING
    is_shell: bool = False

    @property
    def is_first(self) -> bool:
        """True if this launcher decides and writes the record."""
        return self.index == 0

    @property
    def node_rank(self) -> int:
        """Number of this launcher's machine."""
        return self.worker.node_rank if self.worker else self.index

    @property
    def speaks_for_node(self) -> bool:
        """True for one launcher of each machine."""
        return self.worker is None or self.worker.local_rank == 0

    @property
    def ranks(self) -> range:
        """The ranks that this launcher starts."""
        if self.worker:
            return range(self.worker.rank, self.worker.rank + 1)
        per_node = self.topology.nproc_per_node
        return range(self.index * per_node, (self.index + 1) * per_node)

    def name_of(self, index: int) -> str:
        """Return the name of a launcher in messages."""
        return f"the process of rank {index}" if self.worker else f"machine {index}"


def find_launcher(
    *, nnodes: int, nproc: int, node_rank: int | None, rendezvous: str | None, typed: Collection[str]
) -> LauncherInfo | None:
    """Return this process as a launcher of its run; ``None`` if it is the only launcher.

    The options describe it, or torchrun's or srun's variables. If they are incomplete or contradict each other, a
    :class:`UsageError` says so. ``rendezvous`` is ``HOST:PORT`` where the machines meet, and ``typed`` are the options
    that are on the command line, for example ``--nnodes``. The others have their defaults.
    """
    counts = [option for option in ("--nnodes", "--nproc", "--rdzv") if option in typed]
    if nnodes == 1 and "--node-rank" not in typed:
        # Slurm sets the number of the machine for every program, even for one that runs alone.
        node_rank = None
    # If the options give counts, each of Slurm's tasks is a machine's launcher, which starts its own processes.
    tasks_are_machines = bool(counts) and _SLURM_TASKS_VARIABLE in os.environ
    launcher = None if tasks_are_machines else from_environment()
    if launcher is None:
        return from_options(nnodes, nproc, node_rank, rendezvous)
    if counts:
        raise UsageError(
            f"torchrun has started the processes: {counts[0]} is not needed", hint=f"leave {counts[0]} out"
        )
    return launcher


def from_options(nnodes: int, nproc: int, node_rank: int | None, rendezvous: str | None) -> LauncherInfo | None:
    """Return the launcher that the options describe; ``None`` for a run on one machine.

    Options that are incomplete or contradict each other are a :class:`UsageError`.
    """
    if nnodes == 1:
        if rendezvous is not None or (node_rank or 0) != 0:
            raise UsageError("--node-rank and --rdzv belong to a run on several machines", hint="add --nnodes N")
        return None
    if node_rank is None or rendezvous is None:
        raise UsageError(
            f"a run on {nnodes} machines needs --node-rank and --rdzv on each of them",
            hint="--node-rank 0 on the first, 1 on the next; --rdzv HOST:PORT, a free port of the first, on all",
        )
    if not 0 <= node_rank < nnodes:
        raise UsageError(f"--node-rank {node_rank} is not one of {nnodes} machines", hint="they are counted from 0")
    host, port = _endpoint(rendezvous)
    return LauncherInfo(
        index=node_rank,
        count=nnodes,
        host=host,
        port=port,
        topology=Topology(nnodes=nnodes, nproc_per_node=nproc),
    )


def from_environment(environment: Mapping[str, str] = os.environ) -> LauncherInfo | None:
    """Return this process as a launcher from torchrun's or srun's variables; ``None`` if neither started it.

    Processes that are not distributed evenly and in order over the machines are a :class:`UsageError`.
    """
    if _TORCHRUN_VARIABLE in environment and "LOCAL_RANK" in environment:
        rank = rank_from_environment(environment)
        host, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
        agent_listens = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return _of_worker(rank, *_endpoint(f"{host}:{port}"), torchrun_listens=agent_listens)
    if _number(environment, _SLURM_TASKS_VARIABLE) > 1:
        launcher = _of_worker(_slurm_rank(environment), *_slurm_endpoint(environment))
        return replace(launcher, joining=JOINING_STEP, is_shell="SLURM_PTY_PORT" in environment)
    return None


def _of_worker(rank: Rank, host: str, port: int, *, torchrun_listens: bool = False) -> LauncherInfo:
    if rank.world_size % rank.local_world_size or rank.rank != rank.node_rank * rank.local_world_size + rank.local_rank:
        raise UsageError(
            f"rank {rank.rank} is process {rank.local_rank} of {rank.local_world_size} on machine {rank.node_rank}: "
            "ranks have to follow machines, equally many on each",
            hint="srun --ntasks-per-node=N --distribution=block, or torchrun with the same --nproc-per-node everywhere",
        )
    return LauncherInfo(
        index=rank.rank,
        count=rank.world_size,
        host=host,
        port=port,
        torchrun_listens=torchrun_listens,
        topology=Topology(nnodes=rank.world_size // rank.local_world_size, nproc_per_node=rank.local_world_size),
        worker=rank,
    )


def _endpoint(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"{text!r} is not HOST:PORT", hint="for example --rdzv node0:29500")
    return host.strip("[]"), int(port)


def _slurm_rank(environment: Mapping[str, str]) -> Rank:
    try:
        tasks = environment["SLURM_STEP_TASKS_PER_NODE"]
        # Slurm writes equal numbers of tasks in a run-length form, for example 8(x2).
        equal = re.fullmatch(r"([1-9]\d*)(\(x\d+\))?", tasks)
        if equal is None:
            raise UsageError(
                f"the machines have different numbers of processes: {tasks}",
                hint="srun --ntasks-per-node=N gives all N",
            )
        return Rank(
            rank=int(environment["SLURM_PROCID"]),
            local_rank=int(environment["SLURM_LOCALID"]),
            world_size=int(environment[_SLURM_TASKS_VARIABLE]),
            local_world_size=int(equal[1]),
            node_rank=int(environment["SLURM_NODEID"]),
        )
    except (KeyError, ValueError) as error:
        hint = f"start the processes with srun, or unset {_SLURM_TASKS_VARIABLE} if this is no step of Slurm"
        raise UsageError(f"Slurm's variables are incomplete: {error}", hint=hint) from error


def _number(environment: Mapping[str, str], name: str) -> int:
    """Return the number in a variable; 0 if there is none, because a shell may have kept or emptied the variable."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0


def _slurm_endpoint(environment: Mapping[str, str]) -> tuple[str, int]:
    host = environment.get("MASTER_ADDR") or _first_slurm_host(environment.get("SLURM_STEP_NODELIST", ""))
    # Two steps on one machine need different ports, and all processes of a step must find the same port.
    step = _number(environment, "SLURM_JOB_ID") * 7 + _number(environment, "SLURM_STEP_ID")
    port = environment.get("MASTER_PORT") or str(_FIRST_SLURM_PORT + step % _SLURM_PORTS)
    return _endpoint(f"{host}:{port}")


def _first_slurm_host(nodes: str) -> str:
    """Return the first machine of Slurm's list. Only Slurm's own tool can split every form of list."""
    if not re.search(r"[\[,]", nodes):
        return nodes
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        raise UsageError("scontrol is not here to read Slurm's list of machines", hint="set MASTER_ADDR in the job")
    output = run_tool([scontrol, "show", "hostnames", nodes], timeout_s=_SCONTROL_TIMEOUT_S)
    if output.problem or not output.stdout.split():
        problem = output.problem or "it printed nothing"
        raise UsageError(f"scontrol cannot read {nodes}: {problem}", hint="set MASTER_ADDR in the job")
    return output.stdout.split()[0]
