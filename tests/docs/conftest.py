"""A place in which the commands of the documentation can be run: tiny data, and the run that README.md tells of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from chipperf.data.coco_sample import CocoSampleOptions, ensure_coco_sample
from chipperf.data.sample import SampleOptions, ensure_sample_dataset
from chipperf.suites.state import SuiteDirectory
from chipperf.suites.suite_plan import plan_suite
from documents import README, ROOT, TOML_PAGE, blocks, commands
from ready_python import install_perf

_SMALLER = {
    "perf train": "--vendor cpu --preset tiny --max-steps 14 --repeat 1 --data {data}",
    "perf train detr": "--data {coco}",
    "perf suite": "--dry-run",
    "perf suite --resume": "--out begun",
    "perf limits": "--nproc 1",
    "perf qualify --vendor": "--dry-run",
    "perf qualify --out": "--help",
    "perf data check": "--any-size",
    "perf report runs --case": "--case mobilenetv2",
    "perf data sample --out": "--train-per-class 2 --val-per-class 1",
}
"""Options that make a command harmless; they follow its own, and the last of two equal options counts."""


@dataclass(frozen=True)
class Workplace:
    """A directory to run commands in, few images in place of ImageNet and COCO, and a ``perf`` that is forked."""

    directory: Path
    data: Path
    coco: Path
    programs: Path

    def harmless(self, command: str) -> str:
        """Return the command with other data, and options that make it small."""
        takes_options = not command.startswith("perf train") or "--resume" not in command
        options = [text for start, text in _SMALLER.items() if command.startswith(start) and takes_options]
        smaller = command.replace("/data/imagenet", str(self.data)).replace("/data/coco", str(self.coco))
        return " ".join([smaller, *options]).format(data=self.data, coco=self.coco)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run the harmless form of a command as a shell would."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERF_")}
        # What trains is started as its readers do; dozens of others would each import what a fork has.
        folders = [*([] if command.startswith("perf train ") else [self.programs]), Path(sys.executable).parent]
        environment["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "-c", self.harmless(command)],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=environment,
        )


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The workplace, without any run."""
    options = SampleOptions(classes=6, train_per_class=8, val_per_class=4, width=48, height=36)
    data = ensure_sample_dataset(options, tmp_path_factory.mktemp("data"))
    coco = ensure_coco_sample(CocoSampleOptions(train_samples=2, val_samples=1, width=64, height=48), data.parent)
    directory = tmp_path_factory.mktemp("workplace")
    (directory / "run.toml").write_text(blocks(TOML_PAGE, "toml")[0], encoding="utf-8")
    for example in ("nightly.toml", "flagperf-cases.txt", "scaling.toml"):
        shutil.copy(ROOT / "docs" / "examples" / example, directory)
    for item in commands(ROOT / "docs" / "verify.md"):
        if item.text.startswith(("ssh-keygen", "echo ")):  # Make the key that a bundle is signed with.
            subprocess.run(["bash", "-c", item.text], cwd=directory)
    begun = SuiteDirectory(directory / "begun")
    with begun.locked():
        begun.write(begun.begin(plan_suite(directory / "nightly.toml"), directory / "nightly.toml"))
    programs = tmp_path_factory.mktemp("programs")
    install_perf(programs)
    return Workplace(directory, data, coco, programs)


@pytest.fixture(scope="session")
def trained(workplace: Workplace) -> Workplace:
    """The workplace after README's own training command."""
    training = next(item.text for item in commands(README) if item.text.startswith("perf train") and not item.marked)
    completed = workplace.run(training)
    assert completed.returncode == 0, completed.stderr
    return workplace
