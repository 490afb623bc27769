"""What a suite's file may say, and what its matrix becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import ConfigError, PerfError
from chipperf.suites.suite_plan import parse_case_key, plan_suite

if TYPE_CHECKING:
    from chipperf.suites.suite_plan import SuitePlan

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def plan(tmp_path: Path, text: str, name: str = "suite.toml") -> SuitePlan:
    file = tmp_path / name
    file.write_text(text)
    return plan_suite(file)


def test_a_matrix_has_every_combination_in_the_files_order(tmp_path: Path) -> None:
    runs = plan(
        tmp_path,
        """
        [[run]]
        case = ["resnet50", "mobilenetv2"]
        precision = ["fp32", "bf16"]
        topology = ["1x1", "1x8"]
        repeats = 2
        """,
    ).runs

    assert len({run.name for run in runs}) == len(runs) == 16
    assert [run.name for run in runs[:5]] == [
        "resnet50-fp32-1x1/repeat-1",
        "resnet50-fp32-1x1/repeat-2",
        "resnet50-bf16-1x1/repeat-1",
        "resnet50-bf16-1x1/repeat-2",
        "resnet50-fp32-1x8/repeat-1",
    ]
    assert {(run.case, run.precision, run.topology) for run in runs} == {
        (case, precision, topology)
        for case in ("resnet50", "mobilenetv2")
        for precision in ("fp32", "bf16")
        for topology in ("1x1", "1x8")
    }


def test_a_huge_matrix_is_planned(tmp_path: Path) -> None:
    runs = plan(tmp_path, '[[run]]\ncase = "resnet50"\nrepeats = 5000\n').runs

    assert len({run.seed for run in runs}) == 5000


def test_an_entry_overrides_defaults_and_set_key_by_key(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "images" / part).mkdir(parents=True)
    first, second = plan(
        tmp_path,
        """
        [defaults]
        vendor = "cpu"
        preset = "tiny"
        data = "images"
        budget = "30m"
        set = { lr = 0.5, workers = 0, deterministic = true }

        [[run]]
        case = "mobilenetv2"

        [[run]]
        name = "other"
        case = "mobilenetv2"
        preset = "demo"
        topology = "1x2"
        max_epochs = 3
        max_steps = 9
        seed = 3
        device_check = false
        set = { lr = 0.25 }
        """,
    ).runs

    data = f"--data={tmp_path / 'images'}"
    assert first.arguments == (
        *("mobilenetv2", "--precision=fp32", "--nproc=1", "--preset=tiny", "--vendor=cpu", data, "--budget=30m"),
        *("--set=lr=0.5", "--set=workers=0", "--set=deterministic=true", "--seed=41"),
    )
    assert second.configuration == "other-mobilenetv2-fp32-1x2"
    assert second.arguments == (
        *("mobilenetv2", "--precision=fp32", "--nproc=2", "--preset=demo", "--vendor=cpu", data),
        *("--max-epochs=3", "--max-steps=9", "--budget=30m", "--no-device-check"),
        *("--set=lr=0.25", "--set=workers=0", "--set=deterministic=true", "--seed=3"),
    )


def test_a_configuration_file_belongs_to_the_plan_with_its_content(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[hyperparameters]\nseed = 9\n")
    text = '[[run]]\ncase = "resnet50"\nconfig = "run.toml"\n'
    [before] = plan(tmp_path, text).runs
    (tmp_path / "run.toml").write_text("[hyperparameters]\nseed = 9\nworkers = 1\n")
    [after] = plan(tmp_path, text).runs

    assert before.seed == 9
    assert f"--config={tmp_path / 'run.toml'}" in before.arguments
    assert before != after


RUN = '[[run]]\ncase = "resnet50"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "run is missing"),
        ("[[run]", "is not TOML"),
        ("[[run]]\n", "[[run]] 1 needs either case or case_keys"),
        (f"{RUN}max_step = 3\n", "[[run]] 1: unknown key 'max_step' (did you mean 'max_steps'?)"),
        (f"{RUN}[defaults]\nvendr = 'cpu'\n", "[defaults]: unknown key 'vendr' (did you mean 'vendor'?)"),
        (f"defalts = 3\n{RUN}", "unknown key 'defalts' (did you mean 'defaults'?)"),
        (f"{RUN}\n{RUN}precision = 'bf61'\n", "[[run]] 2: precision: 'bf61' is none of"),
        (f"{RUN}precision = []\n", "[[run]] 1: precision: []"),
        (f"{RUN}topology = '8'\n", "[[run]] 1: topology: '8' is not machines x devices, for example 1x8"),
        (f"{RUN}repeats = '3'\n", "[[run]] 1: repeats: '3': Input should be a valid integer"),
        (f"{RUN}repeats = 0\n", "[[run]] 1: repeats: 0: Input should be greater"),
        (f"{RUN}set = {{ lr = [1] }}\n", "[[run]] 1: set.lr: [1] is not a number"),
        (f"{RUN}set = {{ lrr = 1 }}\n", "[[run]] 1: the command line sets unknown hyperparameter 'lrr'"),
        (f"{RUN}set = {{ lr = 'fast' }}\n", "[[run]] 1: the command line: hyperparameter 'lr' cannot be 'fast'"),
        (f"{RUN}seed = 3\nset = {{ seed = 4 }}\n", "[[run]] 1: seed and set set seed to different values, 3 and 4"),
        (f"defaults = {{ seed = 3, set = {{ seed = 4 }} }}\n{RUN}", "[defaults]: seed and set set seed"),
        (f"{RUN}name = '../up'\n", "[[run]] 1: name: '../up'"),
        (f"{RUN}preset = 'dmeo'\n", "[[run]] 1: case resnet50 has no preset 'dmeo'"),
        (f"{RUN}budget = '30'\n", "[[run]] 1: budget '30' is not a duration"),
        (f"{RUN}data = 'nowhere'\n", "nowhere does not exist"),
        (f"{RUN}config = 'nowhere.toml'\n", "nowhere.toml"),
        (f"{RUN}vendor = 'cpuu'\n", "no vendor is called 'cpuu' (did you mean 'cpu'?)"),
        ("[[run]]\ncase = 'resnet5'\n", "[[run]] 1: unknown case 'resnet5' (did you mean 'resnet50'?)"),
        (f"{RUN}\n{RUN}", "[[run]] 2 plans resnet50-fp32-1x1, as [[run]] 1 does"),
        ("[run]\ncase = 'resnet50'\n", "[[run]] with two brackets"),
        (
            "[[run]]\ncase_keys = 'resnet50:pytorch:A100:1:1:1'\ntopology = '1x1'\n",
            "sets topology, which its case_keys",
        ),
        (
            "[[run]]\ncase_keys = 'resnet50:pytorch:A100:1:1'\n",
            "case_keys: 'resnet50:pytorch:A100:1:1' is not a case key",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PerfError) as caught:
        plan(tmp_path, text)

    assert message in caught.value.message
    assert str(tmp_path / "suite.toml") in caught.value.message or message == "is not TOML"
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        plan_suite(tmp_path / "nothing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="byte 0 is not UTF-8"):
        plan_suite(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    "line",
    [
        "resnet50:pytorch_1.13:A100:1:8:3",
        '"resnet50:pytorch_1.13:A100:1:8:3": "/data/imagenet",',
        "'resnet50:pytorch_1.13:A100:1:8:3' : '/data/imagenet'",
        "resnet50:pytorch_1.13:A100:1:8:3 /data/imagenet",
        "resnet50:pytorch_1.13:A100:1:8:3: /data/imagenet",
    ],
)
def test_a_case_key_is_read_as_flagperf_writes_it(line: str) -> None:
    key = parse_case_key(line, "file:1")

    assert (key.case, key.topology, key.repeats) == ("resnet50", "1x8", 3)
    assert key.data == (Path("/data/imagenet") if "/data" in line else None)
    assert any("hardware 'A100'" in text for text in key.ignored)
    assert any("framework 'pytorch_1.13'" in text for text in key.ignored)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resnet50", "is not a case key"),
        ("resnet50:pytorch_1.13:A100:1:8", "is not a case key"),
        ("resnet50:pytorch_1.13::1:8:1", "is not a case key"),
        ("resnet50:pytorch_1.13:A100:1:8:1:9", "is not a case key"),
        ("resnet50:pytorch_1.13:A100:one:8:1", "nnodes is 'one'"),
        ("resnet50:pytorch_1.13:A100:1:0:1", "nproc is '0'"),
        ("resnet50:pytorch_1.13:A100:1:8:²", "repeat is '²'"),
        ("resnet50:paddle_2.3:A100:1:8:1", "framework 'paddle_2.3' is not pytorch"),
    ],
)
def test_a_key_that_cannot_be_run_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match="cases.txt:2: ") as caught:
        plan(tmp_path, f"# first\n{line}\n", "cases.txt")
    assert message in caught.value.message


def test_flagperfs_own_list_becomes_runs(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    planned = plan(
        tmp_path,
        f"""CASES = {{
            # FlagPerf's test_conf.py
            "resnet50:pytorch_1.13:A100:1:8:2": "{tmp_path}",

            "mobilenetv2:pytorch_1.8:A100:1:1:1": "{tmp_path}",
        }}
        """,
        "cases.py",
    )

    assert [run.name for run in planned.runs] == [
        "resnet50-fp32-1x8/repeat-1",
        "resnet50-fp32-1x8/repeat-2",
        "mobilenetv2-fp32-1x1/repeat-1",
    ]
    assert all(f"--data={tmp_path}" in run.arguments for run in planned.runs)
    assert len(planned.ignored) == 4


def test_keys_in_a_suite_take_its_options(tmp_path: Path) -> None:
    [run] = plan(
        tmp_path,
        """
        [defaults]
        vendor = "cpu"
        topology = "1x4"
        repeats = 9

        [[run]]
        case_keys = "resnet50:pytorch:A100:1:2:1"
        precision = "bf16"
        """,
    ).runs

    assert run.name == "resnet50-bf16-1x2/repeat-1"
    assert "--vendor=cpu" in run.arguments


def test_an_empty_list_of_keys_names_no_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no runs"):
        plan(tmp_path, "# nothing\n\nCASES = {\n}\n", "cases.txt")


@pytest.mark.parametrize("name", ["nightly.toml", "flagperf-cases.txt"])
def test_examples_of_the_documentation_are_plans(name: str) -> None:
    assert plan_suite(EXAMPLES / name).runs
