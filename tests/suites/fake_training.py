"""``perf`` with a fake in place of training, so that suites end in no time and fail when they are told to."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chipperf.records.checkpoints import MANIFEST, CheckpointManifest, checkpoint_name
from support import perf_environment, run, started

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from ready_python import ReadyProcess

PROGRAM = Path(__file__).with_name("perf_with_fake_train.py")


@dataclass(frozen=True)
class FakeTraining:
    """Runs ``perf`` in ``directory``; its runs do what :meth:`behave` says, and complete otherwise."""

    directory: Path

    def behave(self, **actions: str) -> None:
        """Set what runs do by a part of their path."""
        (self.directory / "behavior.json").write_text(json.dumps(actions))

    def write(self, text: str, name: str = "suite.toml") -> Path:
        """Write a suite's file."""
        file = self.directory / name
        file.write_text(text)
        return file

    def leave_checkpoint(self, run: Path, *, world_size: int) -> None:
        """Put a checkpoint into the directory of a run that began."""
        manifest = CheckpointManifest(
            run_id=json.loads((run / "record.json").read_text())["run_id"],
            step=6,
            world_size=world_size,
            written_at=datetime.now(timezone.utc),
            torch="2",
            devices=["cpu"] * world_size,
            files={},
        )
        checkpoint = run / "checkpoints" / checkpoint_name(1, manifest.step)
        checkpoint.mkdir(parents=True)
        (checkpoint / MANIFEST).write_text(manifest.model_dump_json())

    def state(self, out: str = "out") -> dict[str, Any]:
        """Return the state of a suite."""
        return cast("dict[str, Any]", json.loads((self.directory / out / "suite.json").read_text()))

    def states(self, out: str = "out") -> list[str]:
        """Return the state of every run."""
        return [run["state"] for run in self.state(out)["runs"]]

    def perf(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run ``perf``."""
        return run(self._command(arguments), self._environment(), self.directory)

    def begin(self, *arguments: object, **environment: str) -> subprocess.Popen[str] | ReadyProcess:
        """Start ``perf``, which goes on while the test does."""
        return started(self._command(arguments), self._environment(**environment), self.directory)

    def _command(self, arguments: Sequence[object]) -> list[str]:
        return [sys.executable, str(PROGRAM), *map(str, arguments)]

    def _environment(self, **changes: str) -> dict[str, str]:
        return perf_environment(FAKE_TRAIN=str(self.directory), COLUMNS="200", **changes)

    @property
    def starts(self) -> list[list[str]]:
        """Arguments of every run that was started."""
        file = self.directory / "starts"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def seeds(self) -> list[int]:
        """Seed of every run that was started."""
        return [int(text.partition("=")[2]) for start in self.starts for text in start if text.startswith("--seed=")]
