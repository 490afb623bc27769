"""``perf launch slurm``, and training under a real Slurm: a controller and two daemons on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from chipperf.errors import PluginError, UsageError
from chipperf.launch.slurm import batch_script, submit
from chipperf.records.store import read_record
from support import perf_command, perf_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Perf

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
LIMIT_S = 400
READY_S = 60

CONFIGURATION = """
ClusterName=perf
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
SlurmctldPort={port}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=perf[0-1] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports() -> list[int]:
    """Return three free ports, the last two in a row."""
    for first in range(17000, 30000, 3):
        sockets = []
        try:
            for port in range(first, first + 3):
                sockets.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        else:
            return [first, first + 1, first + 2]
        finally:
            for each in sockets:
                each.close()
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of two nodes; returns the variables with which its tools find it."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt install slurmctld slurmd slurm-client munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons need root's rights")
    root = tmp_path_factory.mktemp("slurm")
    root.chmod(0o755)
    for name in ("state", "spool"):
        (root / name).mkdir()
    key = root / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    port, first, second = free_ports()
    configuration = root / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=socket.gethostname().split(".")[0], root=root, port=port, first=first, second=second)
    )
    environment = os.environ | {"SLURM_CONF": str(configuration)}
    munge = [
        f"--{name}={root}/munge.{name.partition('-')[0]}" for name in ("key-file", "socket", "pid-file", "log-file")
    ]
    # In the foreground, as children: what is not one of ours would be nobody's to end.
    commands = [
        ["munged", "--force", "--foreground", *munge],
        ["slurmctld", "-D", "-f", str(configuration)],
        *(["slurmd", "-D", "-N", f"perf{number}", "-f", str(configuration)] for number in range(2)),
    ]
    daemons = []
    try:
        for command in commands:
            daemons.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            if command[0] == "munged":
                wait_until(lambda: (root / "munge.socket").exists())
        wait_until(lambda: states(environment) == ["idle", "idle"])
        yield {"SLURM_CONF": str(configuration), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    finally:
        steps = [child for daemon in daemons for child in psutil.Process(daemon.pid).children(recursive=True)]
        for process in (*reversed(daemons), *steps):
            process.terminate()
        for daemon in daemons:
            daemon.wait(30)


def wait_until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline_s = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def states(environment: dict[str, str]) -> list[str]:
    command = ["sinfo", "--noheader", "--Node", "--format=%t"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_submitted_job_trains_on_two_machines(
    perf: Perf, slurm: dict[str, str], image_folder: Path, tmp_path: Path
) -> None:
    """Slow: a real run of two ranks, in a job of a real Slurm."""
    process = perf(
        *("launch", "slurm", "mobilenetv2", "--nodes", 2, "--partition", "main", "--directory", tmp_path, "--"),
        *("--vendor", "cpu", "--preset", "tiny", "--max-steps", 2, "--data", image_folder, "--set", "workers=0"),
        **slurm,
    )
    assert process.returncode == 0, process.stderr
    job = process.stdout.split()[1].rstrip(",")
    command = ["squeue", "--noheader", "--jobs", job]

    deadline_s = time.monotonic() + LIMIT_S
    while subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True).stdout.strip():
        assert time.monotonic() < deadline_s
        time.sleep(1)

    log = (tmp_path / f"slurm-{job}.log").read_text()
    record = read_record(tmp_path / f"mobilenetv2-{job}")
    assert record.status.state == "completed", log
    assert record.topology.label == "2x1"
    assert [node.node_rank for node in record.nodes] == [0, 1]
    assert "Traceback" not in log


@pytest.mark.slow
def test_tasks_of_srun_are_the_ranks(perf: Perf, slurm: dict[str, str], image_folder: Path, tmp_path: Path) -> None:
    """Slow: a real run of two ranks under a real Slurm."""
    program = perf_command(
        *("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--max-steps", 2, "--set", "workers=0"),
        *("--data", image_folder, "--out", tmp_path / "run"),
    )
    process = subprocess.run(
        ["srun", "--nodes=1", "--ntasks=2", "--ntasks-per-node=2", *program],
        env=perf_environment(**slurm),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert process.returncode == 0, process.stderr
    record = read_record(tmp_path / "run")
    assert record.status.state == "completed"
    assert (record.topology.label, record.metrics.steps) == ("1x2", 2)


def test_script_is_shown(perf: Perf, tmp_path: Path) -> None:
    process = perf(
        *("launch", "slurm", "resnet50", "mobilenetv2", "--nodes", 2, "--nproc", 8, "--partition", "long one"),
        *("--gres", "gpu:8", "--time", "12:00:00", "--sbatch=--exclusive", "--directory", tmp_path, "--dry-run"),
        *("--", "--vendor", "cpu", "--data", "/data/image net"),
    )

    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in ("--nodes=2", "--partition=long one", "--gres=gpu:8", "--time=12:00:00", "--exclusive"):
        assert f"#SBATCH {option}" in lines
    steps = [line for line in lines if line.startswith("srun ")]
    assert [line.split(" chipperf train ")[1].split()[0] for line in steps] == ["resnet50", "mobilenetv2"]
    assert all("--vendor cpu --data '/data/image net'" in line for line in steps)
    assert list(tmp_path.iterdir()) == []
    checked = subprocess.run(["bash", "-n"], input=process.stdout, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_script_for_one_machine_meets_nobody(tmp_path: Path) -> None:
    script = batch_script(["resnet50"], [], nodes=1, nproc=8, directory=tmp_path)

    assert "--rdzv" not in script
    assert "--nproc 8" in script


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--nodes", 2, "--", "--vendor", "cpu"], "no case is named"),
        (["resnet"], "resnet"),
        (["resnet50", "--", "--nonsense"], "perf train does not take these options"),
        (["resnet50", "--", "--nproc", 8], "the script sets --nproc itself"),
        (["resnet50", "--", "--out", "x"], "the script sets --out itself"),
        (["resnet50", "--sbatch", "account=me"], "'account=me' is not an option of sbatch"),
        (["resnet50", "--partition", "a\nrm -r x"], "is not an option of sbatch"),
    ],
)
def test_unusable_jobs_are_refused(perf: Perf, tmp_path: Path, arguments: list[object], error: str) -> None:
    process = perf("launch", "slurm", "--directory", tmp_path, *arguments)

    assert process.returncode == 2
    assert error in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_sbatch_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PluginError, match="sbatch is not installed here"):
        submit(tmp_path / "script")


def test_refused_job_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "sbatch"
    tool.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PluginError, match="accepted no job: .*sbatch ended with status 1: sbatch: error: invalid"):
        submit(tmp_path / "script")


@pytest.mark.parametrize("code", [0, 1])
def test_script_stays_only_if_there_is_a_job(perf: Perf, tmp_path: Path, code: int) -> None:
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho 7\nexit {code}\n")
    tool.chmod(0o755)

    process = perf(
        *("launch", "slurm", "resnet50", "--directory", tmp_path / "runs", "--", "--vendor", "cpu"),
        PATH=f"{tool.parent}:{os.environ['PATH']}",
    )

    assert process.returncode == (3 if code else 0), process.stderr
    assert [file.suffix for file in (tmp_path / "runs").iterdir()] == ([] if code else [".sbatch"])


def test_option_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        batch_script(["resnet50"], [], nodes=1, nproc=1, directory=tmp_path, options=["--comment=a\nrm"])
