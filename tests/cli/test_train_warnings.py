"""What ``perf train`` warns of and refuses before it begins."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import typer
from chipperf.cases.classification.case import MOBILENETV2
from chipperf.cli import train
from chipperf.cli.main import app

if TYPE_CHECKING:
    from chipperf.launch.options import TrainOptions
    from invocation import Invoke
    from support import MakePlan


@pytest.mark.parametrize(
    ("options", "is_warned"),
    [
        ((), True),
        (("--preset", "full", "--nproc", 2), True),
        (("--preset", "demo"), False),
        (("--data", "images"), False),
        (("--max-epochs", 1), False),
        (("--max-steps", 10), False),
        (("--budget", "10m"), False),
    ],
)
def test_the_whole_schedule_on_the_sample_is_warned_of_with_what_to_do(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, make_plan: MakePlan, options: tuple[object, ...], is_warned: bool
) -> None:
    job = SimpleNamespace(plan=make_plan(), case=MOBILENETV2)
    begun = []
    monkeypatch.setattr(train, "plan_job", lambda *arguments, **named: job)
    monkeypatch.setattr(train, "_run", begun.append)

    ended = invoke("train", "mobilenetv2", "--vendor", "cpu", *options)

    warning = (
        "warning: 300 epochs on a generated sample give no benchmark result: --data DIR names the dataset, "
        "--preset demo or --preset tiny trains for minutes\n"
    )
    assert begun == [job]
    assert ended.err == (warning if is_warned else "")


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--seed", "seed"),
        ("--evaluate-every", "evaluate_every_steps"),
        ("--checkpoint-every", "checkpoint_every_steps"),
        ("--keep-checkpoints", "keep_checkpoints"),
    ],
)
def test_an_option_and_set_may_not_contradict_each_other(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, make_plan: MakePlan, option: str, key: str
) -> None:
    planned = []

    def plan(options: TrainOptions, **_: object) -> SimpleNamespace:
        planned.append(options.settings)
        return SimpleNamespace(plan=make_plan(), case=MOBILENETV2)

    monkeypatch.setattr(train, "plan_job", plan)
    monkeypatch.setattr(train, "_run", lambda job: None)
    same = ("train", "mobilenetv2", "--preset", "tiny", option, 3, "--set")

    refused = invoke(*same, f"{key}=4")
    agreeing = invoke(*same, f"{key}=3")
    alone = invoke(*same, "lr=0.5")

    assert (refused.code, agreeing.code, alone.code) == (2, 0, 0)
    assert f"{option} and --set set {key} to different values, 3 and 4" in refused.err
    assert [str(settings[key]) for settings in planned] == ["3", "3"]


def test_every_option_that_says_which_setting_it_is_may_not_contradict_it() -> None:
    """The options of the test above are all."""
    command = typer.main.get_command(app).get_command(None, "train")  # type: ignore[attr-defined]

    named = {
        each.opts[0]: match[1] for each in command.params if (match := re.search(r"--set (\w+)=", each.help or ""))
    }

    assert named == {
        "--seed": "seed",
        "--evaluate-every": "evaluate_every_steps",
        "--checkpoint-every": "checkpoint_every_steps",
        "--keep-checkpoints": "keep_checkpoints",
    }
