"""Options of a run: what is refused before a vendor is asked, and what they say about this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf.documents.document_identity import installed_cases
from chipperf.errors import ConfigError, DataError, MissingDataset, PerfError, UsageError
from chipperf.launch.launcher_info import from_environment, from_options
from chipperf.launch.options import TrainOptions, check_options
from test_launcher_info import SRUN

if TYPE_CHECKING:
    from pathlib import Path


def test_the_command_line_goes_before_the_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    config.write_text('[hyperparameters]\nseed = 3\nworkers = 2\n[environment]\nmachine = "M1"\n')

    checked = check_options(
        TrainOptions(case="mobilenetv2", preset="tiny", config=config, settings={"seed": 4}, data=tmp_path)
    )

    values = checked.hyperparameters().values
    assert (values.seed, values.workers) == (4, 2)
    assert checked.file.environment == {"machine": "M1"}
    assert checked.case.name == "mobilenetv2"


@pytest.mark.parametrize(
    ("changes", "kind", "fault"),
    [
        ({"case": "resnet5"}, UsageError, "did you mean 'resnet50'"),
        ({"preset": "fll"}, ConfigError, "has no preset 'fll'"),
        ({"settings": {"lrr": 1}}, ConfigError, "unknown hyperparameter 'lrr'"),
        ({"data": "nowhere"}, DataError, "nowhere does not exist"),
        ({"config": "nowhere.toml"}, ConfigError, "cannot read"),
    ],
)
def test_impossible_options_are_refused(
    tmp_path: Path, changes: dict[str, object], kind: type[PerfError], fault: str
) -> None:
    paths = {name: tmp_path / str(changes[name]) for name in ("data", "config") if name in changes}
    options = TrainOptions(**{"case": "mobilenetv2", **changes, **paths})  # type: ignore[arg-type]

    with pytest.raises(kind) as raised:
        check_options(options)

    assert fault in raised.value.message


@pytest.mark.parametrize(
    ("case", "part"),
    [(name, part) for name in sorted(installed_cases()) for part in installed_cases()[name].data.parts],
)
def test_data_without_one_of_its_parts_are_refused_with_what_is_there(tmp_path: Path, case: str, part: str) -> None:
    for name in (*installed_cases()[case].data.parts, "other"):
        (tmp_path / name).mkdir()
    check_options(TrainOptions(case=case, data=tmp_path))
    (tmp_path / part).rmdir()

    with pytest.raises(MissingDataset, match=f"has no {part}; {tmp_path} holds .*other") as raised:
        check_options(TrainOptions(case=case, data=tmp_path))

    assert raised.value.exit_code == 2


def test_options_know_the_topology_and_what_starts_here() -> None:
    alone = TrainOptions(case="resnet50", nproc=4)
    machine = TrainOptions(case="resnet50", launcher=from_options(2, 8, 1, "node0:29500"))
    rank_of_srun = TrainOptions(case="resnet50", launcher=from_environment(SRUN))

    assert [(each.topology.label, each.processes_started_here) for each in (alone, machine, rank_of_srun)] == [
        ("1x4", 4),
        ("2x8", 8),
        ("2x2", 0),
    ]
