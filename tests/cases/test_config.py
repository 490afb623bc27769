"""Which source wins, and what is said about one that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chipperf import CaseOverride, CaseOverrides
from chipperf.cases.classification.case import MOBILENETV2 as CASE
from chipperf.cases.config import parse_assignments, read_config_file, resolve
from chipperf.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

BASE_LR = 0.045


def overrides(**values: bool | int | float | str) -> CaseOverrides:
    return CaseOverrides(
        overrides=tuple(CaseOverride(key=key, value=value, reason=f"why {key}") for key, value in values.items()),
        notes=("left out: warmup",),
    )


def test_base_values_without_any_source() -> None:
    resolved = resolve(CASE)

    assert resolved.values == CASE.base
    assert resolved.changes == ()
    assert resolved.notes == ()


@pytest.mark.parametrize(
    ("sources", "lr", "origin"),
    [
        ({"preset": "demo"}, 0.05, "preset"),
        ({"preset": "demo", "vendor_overrides": overrides(lr=0.2)}, 0.2, "vendor"),
        ({"preset": "demo", "vendor_overrides": overrides(lr=0.2), "file": {"lr": 0.3}}, 0.3, "file"),
        (
            {
                "preset": "demo",
                "vendor_overrides": overrides(lr=0.2),
                "file": {"lr": 0.3},
                "command_line": {"lr": "0.4"},
            },
            0.4,
            "command line",
        ),
    ],
)
def test_later_source_wins_and_is_named(sources, lr: float, origin: str) -> None:  # type: ignore[no-untyped-def]
    resolved = resolve(CASE, vendor="acme", **sources)

    assert resolved.values.lr == lr
    [change] = [change for change in resolved.changes if change.key == "lr"]
    assert (change.base, change.value, change.origin) == (BASE_LR, lr, origin)


def test_vendor_reasons_and_notes_are_kept() -> None:
    resolved = resolve(CASE, vendor="acme", vendor_overrides=overrides(batch_size=256, lr=0.36))

    assert {change.key: change.reason for change in resolved.changes} == {
        "batch_size": "why batch_size",
        "lr": "why lr",
    }
    assert resolved.notes == ("left out: warmup",)


def test_value_set_back_to_its_base_is_no_change() -> None:
    resolved = resolve(CASE, vendor="acme", vendor_overrides=overrides(lr=0.36), command_line={"lr": str(BASE_LR)})

    assert resolved.changes == ()


@pytest.mark.parametrize(
    ("sources", "who"),
    [
        ({"vendor_overrides": overrides(batchsize=1)}, "vendor 'acme'"),
        ({"file": {"batchsize": 1}}, "the configuration file"),
        ({"command_line": {"batchsize": "1"}}, "the command line"),
    ],
)
def test_unknown_key_names_the_source_and_the_nearest_key(sources, who: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        resolve(CASE, vendor="acme", **sources)

    assert caught.value.message == f"{who} sets unknown hyperparameter 'batchsize' of case mobilenetv2"
    assert "did you mean 'batch_size'?" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sources", "who"),
    [
        ({"vendor_overrides": overrides(epochs=1)}, "vendor 'acme'"),
        ({"file": {"epochs": 1}}, "the configuration file"),
        ({"command_line": {"epochs": "1"}}, "the command line"),
    ],
)
def test_locked_key_names_the_source_and_the_remedy(sources, who: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        resolve(CASE, vendor="acme", **sources)

    assert caught.value.message == f"{who} sets 'epochs', which case mobilenetv2 locks"
    assert caught.value.hint == "use --max-epochs to shorten a run"


@pytest.mark.parametrize("key", ["model", "optimizer", "dataset", "target", "epochs"])
def test_what_makes_the_benchmark_is_locked_even_at_its_own_value(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key!r}, which case mobilenetv2 locks"):
        resolve(CASE, command_line={key: CASE.base.model_dump()[key]})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", "fast"),
        ("lr", "0"),
        ("lr", "-0.1"),
        ("lr", "inf"),
        ("lr", "nan"),
        ("lr", ""),
        ("warmup_epochs", "inf"),
        ("batch_size", "1.5"),
        ("batch_size", "0"),
        ("seed", "-1"),
        ("seed", str(2**32)),
        ("deterministic", "perhaps"),
        ("workers", "-2"),
    ],
)
def test_value_that_does_not_fit_is_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(CASE, command_line={key: value})

    assert caught.value.message.startswith(f"the command line: hyperparameter {key!r} cannot be {value!r}: ")


def test_texts_of_the_command_line_become_numbers_and_booleans() -> None:
    values = resolve(CASE, command_line={"lr": "1e-1", "seed": "7", "deterministic": "true"}).values

    assert (values.lr, values.seed, values.deterministic) == (0.1, 7, True)


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(CASE, preset="dmeo")

    assert caught.value.message == "case mobilenetv2 has no preset 'dmeo'"
    assert caught.value.hint == "presets: full, demo, tiny (did you mean 'demo'?)"


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert parse_assignments(["lr = 0.2", "note=a=b", "lr=0.3"]) == {"lr": "0.3", "note": "a=b"}


@pytest.mark.parametrize("text", ["lr", "=1", " =1", ""])
def test_text_that_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not key=value"):
        parse_assignments([text])


def test_configuration_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[hyperparameters]\nlr = 0.2\ndeterministic = true\n[environment]\nmachine = "R5300"\n')

    config = read_config_file(path)

    assert config.hyperparameters == {"lr": 0.2, "deterministic": True}
    assert config.environment == {"machine": "R5300"}


def test_empty_configuration_file_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("")

    assert read_config_file(path).hyperparameters == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[hyperparameters]\nlr = = 1\n", "is not TOML: .*line 2, column 6"),
        (b"[hyperparameters]\nlr = 1\nlr = 2\n", "is not TOML: .*line 3"),
        (b"\xff\xfe", "is not TOML: .*can't decode byte 0xff"),
        (b"[hyperparameter]\nlr = 1\n", "unknown table or key 'hyperparameter'"),
        (b"lr = 1\n", "unknown table or key 'lr'"),
        (b"hyperparameters = 1\n", "'hyperparameters' is a value"),
        (b'[environment]\nmachin = "x"\n', "unknown fact 'machin'"),
        (b'[environment]\nmachine = " "\n', "fact 'machine' must be a text that is not empty"),
        (b"[environment]\nmachine = 5\n", "fact 'machine' must be a text that is not empty"),
    ],
)
def test_faulty_configuration_file_is_named_with_the_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=message) as caught:
        read_config_file(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(("name", "reason"), [("none.toml", "No such file or directory"), (".", "Is a directory")])
def test_configuration_file_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        read_config_file(tmp_path / name)
    assert caught.value.hint == "check --config"


def test_nearest_table_and_fact_are_suggested(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[hyperparamters]\n")

    with pytest.raises(ConfigError) as caught:
        read_config_file(path)
    assert "did you mean 'hyperparameters'?" in str(caught.value.hint)
