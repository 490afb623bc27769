"""The contract of cases: one that ``perf cases new`` writes keeps it, and each check finds what breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import torch
from chipperf.cases import registry
from chipperf.cases.base import Hyperparameters, Role
from chipperf.cases.new_case import create_case
from chipperf.contract.check import Failed, NotApplicable, case_checks, find_check
from chipperf.contract.plugin_under_test import PluginUnderTest
from chipperf.errors import ConfigError, UsageError
from chipperf.plugin import installed
from chipperf.plugin.types import EnvironmentSettings, Rank, Title
from support import forget_modules, run_perf

if TYPE_CHECKING:
    from chipperf.cases.base import Case
    from support import FakeDistributions

Hold = Callable[..., None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``src`` directory of a new case's package; not to be written to."""
    project = tmp_path_factory.mktemp("new")
    create_case("points", "Points", project)
    return project / "chipperf-points" / "src"


@pytest.fixture
def case(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.syspath_prepend(str(source))
    from chipperf_points.case import CASE

    yield CASE
    forget_modules(source)


@pytest.fixture
def hold(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Hold the case, with changed fields and a changed workload, to one check."""

    def check(id: str, workload: dict[str, Any] | None = None, **changes: Any) -> None:
        from chipperf_points.workload import CaseWorkload

        changed = replace(case, **changes)
        if workload:
            changed = replace(changed, load_workload=lambda: type("Changed", (CaseWorkload,), workload))
        monkeypatch.setitem(registry._BUILT_IN, "points", changed)
        settings = EnvironmentSettings(case="points", precision="fp32")
        find_check(id).function(PluginUnderTest(installed.find_vendor("cpu"), Rank(), settings, tmp_path))

    return check


OF_ONE_PROCESS = [check.id for check in case_checks() if check.ranks == 1 and check.id != "K1"]


@pytest.mark.parametrize("id", OF_ONE_PROCESS)
def test_new_case_passes(hold: Hold, id: str) -> None:
    hold(id)


def preset(case: Case, **presets: Any) -> dict[str, Any]:
    return {name: values for name, values in {**case.presets, **presets}.items() if values is not None}


class Careless(Hyperparameters):
    forgotten: int = 1


class Unlocked(Hyperparameters):
    epochs: Annotated[int, Role.SCALED]


@pytest.mark.parametrize(
    ("kind", "message"), [(Careless, "forgotten has no Role"), (Unlocked, "epochs is scaled; it defines the benchmark")]
)
def test_roles_are_required(hold: Hold, case: Case, kind: type[Hyperparameters], message: str) -> None:
    values = {key: value for key, value in case.base.model_dump().items() if key in kind.model_fields}

    with pytest.raises(Failed, match=message):
        hold("K2", base=kind(**values))


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        ({"tiny": None}, "there is no preset 'tiny'"),
        ({"full": {"width": 8}}, "'full' must be there and be empty"),
        ({"odd": {"width": 0}}, "preset 'odd' does not resolve"),
        ({"odd": {"hight": 4}}, "preset 'odd' does not resolve.*unknown hyperparameter"),
    ],
)
def test_presets_are_required(hold: Hold, case: Case, presets: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed, match=message):
        hold("K3", presets=preset(case, **presets))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": Title(en="A task without a translation")}, "report.task has no Chinese text"),
        ({"quality_column": "val_loss"}, "lower_is_better is False, but readers assume the opposite of 'val_loss'"),
    ],
)
def test_texts_are_required(hold: Hold, case: Case, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed, match=message):
        hold("K4", report=replace(case.report, quality_as_percent=False, **changes))


def test_result_is_required_to_be_read_as_it_is(hold: Hold, case: Case) -> None:
    """A reader takes a result of an unknown metric for a fraction, and one above 1 for a percentage."""

    class OfLoss(type(case.base)):  # type: ignore[misc]
        target: Annotated[float, Role.LOCKED]

    base = OfLoss(**{**case.base.model_dump(), "target": 2.5})
    report = replace(case.report, quality_column="zorp", quality_as_percent=False)

    with pytest.raises(Failed, match="a result of 2.5 is read as 0.025 in the column 'zorp'"):
        hold("K4", base=base, report=report, lower_is_better=True)
    hold("K4", base=base, report=replace(report, quality_column="val_loss"), lower_is_better=True)


def raising(root: Path, *_: Any, **__: Any) -> Any:
    raise ConfigError("it is wrong")


def test_check_of_data_is_required(hold: Hold, case: Case) -> None:
    def writing(root: Path, *arguments: Any, **options: Any) -> Any:
        if root.is_dir():
            (root / f"seen{len(list(root.iterdir()))}").touch()
        return case.data.check(root, *arguments, **options)  # type: ignore[misc]

    def trusting(root: Path, expected: Any, *, full: bool, progress: Any) -> Any:
        return replace(case.data.check(root, None, full=full, progress=progress), findings=())  # type: ignore[misc]

    for check, message in (
        (None, "no check of its data"),
        (raising, "raises an error instead of reporting it: it is wrong"),
        (writing, "changes the directory|generated data have faults"),
        (trusting, "data of other sizes are accepted as those of points_points"),
    ):
        with pytest.raises(Failed, match=message):
            hold("K5", data=replace(case.data, check=check))


def test_generated_data_are_required_to_be_alike(hold: Hold, case: Case) -> None:
    from chipperf_points.data import ensure_points

    def changing(samples: int, size: str, root: Path) -> Path:
        return ensure_points(samples + random.Random(str(root)).randrange(1000), None, root)

    with pytest.raises(Failed, match="other files are generated"):
        hold("K6", data=replace(case.data, ensure_few_samples=changing))
    with pytest.raises(NotApplicable, match="the case generates no data"):
        hold("K6", data=replace(case.data, ensure_few_samples=None))


def without_epoch(self: Any, epoch: int, first_batch: int = 0) -> Any:
    return type(self).__mro__[1].epoch_batches(self, 0, first_batch)


def from_the_start(self: Any, epoch: int, first_batch: int = 0) -> Any:
    return type(self).__mro__[1].epoch_batches(self, epoch)


def drawn(self: Any, epoch: int, first_batch: int = 0) -> Any:
    batches = list(type(self).__mro__[1].epoch_batches(self, epoch, first_batch))
    random.shuffle(batches)
    return iter(batches)


def of_rank_0(self: Any, context: Any) -> None:
    type(self).__mro__[1].__init__(self, replace(context, rank=Rank(world_size=context.rank.world_size)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_count": lambda self, batch: len(batch[1]) + 1}, "batches have .5. samples instead of 4"),
        ({"epoch_batches": without_epoch}, "epoch 2 has the batches of epoch 1"),
        ({"epoch_batches": from_the_start}, "from its second batch on, an epoch has others"),
        ({"epoch_batches": drawn}, "an epoch differs the second time"),
        ({"__init__": of_rank_0}, "2 ranks begin with 1 different batches"),
    ],
)
def test_batches_are_required_to_repeat(hold: Hold, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed, match=message):
        hold("K7", changes)


def test_resumption_is_required(hold: Hold) -> None:
    """The rate of this one depends on how often it was asked for since the process began."""

    def rates(self: Any, step: int) -> list[float]:
        self.asked = getattr(self, "asked", 0) + 1
        return [0.1 / self.asked]

    with pytest.raises(Failed, match="after a resumption the model has different bits"):
        hold("K10", {"learning_rates": rates})


def changing_loss(self: Any, model: Any, batch: Any) -> Any:
    batch[0].mul_(0.5)
    return type(self).__mro__[1].loss(self, model, batch)


def changing_step(self: Any, model: Any, batch: Any) -> Any:
    loss = type(self).__mro__[1].loss(self, model, batch)
    batch[1].zero_()
    return loss


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": changing_loss}, "the same batch has the loss"),
        ({"loss": changing_step}, "the same batch has the loss|changes the batch"),
        ({"to_device": lambda self, batch: [part.numpy() for part in batch]}, "has no tensor on"),
    ],
)
def test_batches_are_required_to_stay(hold: Hold, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed, match=message):
        hold("K11", changes)


def with_spare(self: Any) -> Any:
    model = type(self).__mro__[1].build_model(self)
    model.register_parameter("spare", torch.nn.Parameter(torch.ones(1)))
    return model


def first_only(self: Any, model: Any) -> Any:
    return torch.optim.SGD([next(model.parameters())], lr=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build_model": with_spare}, "spare gets no finite gradient"),
        ({"build_optimizer": first_only}, "is 0 times in the optimizer"),
        ({"learning_rates": lambda self, step: [0.1, 0.1]}, r"learning_rates\(0\) is .* for 1 groups"),
        ({"loss": lambda self, model, batch: model(batch[0]).sum() * float("nan")}, "the loss is nan"),
    ],
)
def test_every_parameter_is_required_to_train(hold: Hold, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Failed, match=message):
        hold("K12", changes)


def test_arithmetic_is_required_to_be_right(hold: Hold, case: Case) -> None:
    assert case.forward_flops is not None
    with pytest.raises(Failed, match="a forward pass of a sample has 1280 operations as counted, 640 by forward_flops"):
        hold("K13", forward_flops=case.forward_flops / 2)
    with pytest.raises(NotApplicable):
        hold("K13", forward_flops=None)


def test_loss_is_required_to_fall(hold: Hold) -> None:
    def rising(self: Any, model: Any) -> Any:
        return torch.optim.SGD(model.parameters(), lr=0.05, maximize=True)

    with pytest.raises(Failed, match="the loss goes from"):
        hold("K14", {"build_optimizer": rising})


def held(distributions: FakeDistributions, source: Path, edits: dict[str, tuple[str, str]], *checks: str) -> Any:
    """Run checks of ``perf contract case`` on the new case, with one text replaced in each named file."""
    package = distributions.root / "chipperf_points"
    package.mkdir()
    for path in (source / "chipperf_points").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if edit := edits.get(path.stem):
            assert edit[0] in text
            text = text.replace(*edit)
        (package / path.name).write_text(text, encoding="utf-8")
    distributions.add("chipperf-points", "[chipperf.cases]\npoints = chipperf_points.case:CASE\n")
    only = [argument for check in checks for argument in ("--check", check)]
    return run_perf("contract", "case", "points", *only, PYTHONPATH=distributions.python_path)


@pytest.mark.slow
def test_new_case_passes_in_processes_of_its_own(distributions: FakeDistributions, source: Path) -> None:
    """Slow: all checks, those of several ranks too."""
    ended = held(distributions, source, {})

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{len(case_checks())} of {len(case_checks())} checks passed" in ended.stdout


@pytest.mark.parametrize(
    ("checks", "edits", "message"),
    [
        (
            ["K1"],
            {"case": ("from pathlib import Path", "from pathlib import Path\n\nimport numpy")},
            "numpy is imported",
        ),
        (
            ["K8", "K9"],
            {"workload": ("correct, total = collectives.sum_counts([correct, counted])", "total = counted")},
            "evaluation counted",
        ),
        (
            ["K9"],
            {"workload": ("value=correct / total", "value=1 / (1 + collectives.sum_counts([1])[0])")},
            "ranks, and",
        ),
    ],
    ids=["heavy", "one rank's samples", "another result"],
)
def test_faults_of_processes_are_found(
    distributions: FakeDistributions, source: Path, checks: list[str], edits: Any, message: str
) -> None:
    ended = held(distributions, source, edits, *checks)

    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert message in " ".join(ended.stdout.split())
    assert f"0 of {len(checks)} checks" in ended.stdout


def test_every_check_is_seen_to_fail() -> None:
    """Each has a test above that breaks a case."""
    text = Path(__file__).read_text(encoding="utf-8")

    assert all(f'"{check.id}"' in text for check in case_checks())


def test_check_of_a_plugin_is_refused() -> None:
    ended = run_perf("contract", "case", "resnet50", "--check", "M4")

    assert ended.returncode == 2
    assert "M4 checks a plugin" in ended.stderr


@pytest.mark.parametrize("name", ["resnet50", "new", "Case", "class", "9"])
def test_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        create_case(name, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_package_has_all_its_files(source: Path) -> None:
    project = source.parent

    assert {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()} >= {
        *(".gitignore", "LICENSE", "README.md", "pyproject.toml", "tests/test_contract.py"),
        *(f"src/chipperf_points/{name}.py" for name in ("__init__", "case", "data", "hyperparameters", "workload")),
        "src/chipperf_points/py.typed",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mobilenetv2", "detr"])
def test_cases_of_core_pass(name: str) -> None:
    """Slow: real models."""
    # DETR's resumption is tested in tests/train, and N5 compares it with the reference.
    only = ("K1", "K2", "K3", "K4", "K5", "K6", "K7", "K9", "K13") if name == "detr" else ()
    ended = run_perf("contract", "case", name, *(part for id in only for part in ("--check", id)))

    assert ended.returncode == 0, ended.stdout + ended.stderr
