"""What a run's events, telemetry and logs say about its record: a real run's, changed afterwards."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chipperf.bundle.pack import pack
from chipperf.cli.main import app
from chipperf.records.part_digests import part_digests
from chipperf.records.schema import Failure, Interruption, LimitsOfRun, Missing
from chipperf.records.store import read_record
from chipperf.run.directory import RunDirectory
from chipperf.run.telemetry_process import read_telemetry
from chipperf.verify.evidence import examine
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import FinishedRun
    from typer.testing import Result

SEED = Path(__file__).parents[1] / "report" / "seeds" / "kunlunxin-mobilenetv2.md"


@pytest.fixture
def run(trained_run: FinishedRun, tmp_path: Path) -> RunDirectory:
    return RunDirectory(shutil.copytree(trained_run.directory, tmp_path / "run"))


def events(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.events.read_text(encoding="utf-8").splitlines()]


def change(run: RunDirectory, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the record's file."""
    content = json.loads(run.record.read_text(encoding="utf-8"))
    edit(content)
    run.record.write_text(json.dumps(content), encoding="utf-8")


def change_event(run: RunDirectory, name: str, value: object) -> None:
    changed = events(run)
    next(event for event in changed if event["event"] == name)["value"] = value
    run.events.write_text("".join(json.dumps(event) + "\n" for event in changed), encoding="utf-8")


def forget_checksums(run: RunDirectory) -> None:
    """Let the record be one of an earlier version."""
    run.write_record(read_record(run.record).model_copy(update={"evidence": Missing(missing="unknown")}))


def contradictions(run: RunDirectory) -> list[str]:
    return examine(read_record(run.record), run.path).contradictions


def perf(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_agrees_with_its_evidence(run: RunDirectory) -> None:
    record = read_record(run.record)
    found = examine(record, run.path)

    # On a busy machine, what was measured later may have been slower.
    assert (found.contradictions, [note for note in found.notes if " is less than " not in note]) == ([], [])
    assert isinstance(record.evidence, dict)
    assert set(record.evidence) == {"events.jsonl", "telemetry-node0.jsonl", "logs/rank0.log", "logs/rank1.log"}


def test_the_core_pass_writes_its_windows_as_events(run: RunDirectory) -> None:
    told = [event["value"] for event in events(run) if event["event"] == "CORE_WINDOW_STOP"]
    windows = read_record(run.record).metrics.p_core.windows

    assert told == [{"samples": each.samples, "seconds": each.seconds, "loss": each.loss} for each in windows]


@pytest.mark.parametrize("name", ["events.jsonl", "telemetry-node0.jsonl", "logs/rank0.log", "logs/rank1.log"])
def test_changed_and_removed_files_are_named(run: RunDirectory, name: str) -> None:
    file = run.path / name
    with file.open("a", encoding="utf-8") as opened:
        opened.write("\n")
    assert contradictions(run)[0] == f"{name} was changed after the run ended"

    file.unlink()
    assert contradictions(run) == []
    assert f"{name} is not there" in examine(read_record(run.record), run.path).notes


def test_a_file_that_the_run_did_not_write_is_named(run: RunDirectory) -> None:
    run.log(7).write_text("NaN loss\n", encoding="utf-8")

    assert contradictions(run) == ["logs/rank7.log does not belong to the run"]


@pytest.mark.parametrize(
    ("event", "value", "text"),
    [
        ("SEED", 6, "seed is 5, events.jsonl gives 6"),
        ("SEED", "6\nREADME.md: 193 cells equal", "seed is 5, events.jsonl gives 6\\nREADME.md: 193 cells equal"),
        ("GLOBAL_BATCH_SIZE", 16, "hyperparameters.global_batch_size is 8, events.jsonl gives 16"),
        ("TRAIN_SAMPLES", 10, "dataset.train_samples is 24, events.jsonl gives 10"),
        ("EVAL_ACCURACY", 0.9, "events.jsonl at step 3 gives 0.9"),
        ("WINDOW_STOP", {"samples": 8, "seconds": 1.0, "loss": 1.0}, "metrics.p_train.windows is {'samples': 8"),
        ("CORE_WINDOW_STOP", {"samples": 8, "seconds": 1.0, "loss": 1.0}, "metrics.p_core.windows is {'samples': 8"),
        ("RUN_STOP", "failed", "status.state is success, events.jsonl gives failed"),
    ],
)
def test_events_witness_the_record(run: RunDirectory, event: str, value: object, text: str) -> None:
    forget_checksums(run)
    run.log(0).unlink()
    change_event(run, event, value)

    [found] = contradictions(run)
    assert text in found


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (lambda data: data["metrics"]["data_wait"].update(p50_s=1e-9), "metrics.data_wait"),
        (lambda data: data["metrics"]["memory"].update(allocated_peak_bytes=100_000_000), "metrics.memory"),
        (lambda data: data["metrics"]["rank_steps"][0].update(step_s=1e-9), "metrics.rank_steps"),
        (lambda data: data["metrics"]["spans"].pop(1), "metrics.spans"),
        (lambda data: data["dataset"].update(fingerprint="0" * 64), "dataset"),
        (lambda data: data["environment"].update(cpu_cores=1), "environment"),
        (lambda data: data["knobs"].pop(), "knobs"),
        (lambda data: data.update(run_id="mine"), "run_id"),
        (lambda data: data["case"].update(target=0.01), "case"),
    ],
)
def test_the_last_event_witnesses_what_no_other_tells(
    run: RunDirectory, edit: Callable[[dict[str, Any]], object], name: str
) -> None:
    change(run, edit)
    told = f"{name} was changed after the run ended: events.jsonl has another checksum of it"
    assert told in contradictions(run)

    stop = events(run)[-1]
    del stop["metadata"]["record"]
    run.events.write_text("".join(json.dumps(event) + "\n" for event in [*events(run)[:-1], stop]), encoding="utf-8")
    assert told not in contradictions(run)


def test_a_warning_is_not_left_out(run: RunDirectory) -> None:
    """One more does no harm: the launcher adds some."""
    forget_checksums(run)
    run.log(0).unlink()
    change(run, lambda data: data["warnings"].append("slow"))
    told, others = part_digests(run.record.read_bytes()), events(run)
    others[-1]["metadata"]["record"] = told
    run.events.write_text("".join(json.dumps(event) + "\n" for event in others), encoding="utf-8")
    change(run, lambda data: data["warnings"].append("of the launcher"))
    assert not any("checksum" in text for text in contradictions(run))

    change(run, lambda data: data["warnings"].remove("slow"))
    assert any(re.match(r"warnings\.\d+ was changed after the run ended", text) for text in contradictions(run))


def test_a_withheld_value_is_not_taken_for_a_change(run: RunDirectory) -> None:
    missing = {"missing": "withheld", "reason": "embargo"}
    commitment = {"field": "$.environment.cards[0].name", "reason": "embargo", "sha256": "0" * 64}

    def withhold(data: dict[str, Any]) -> None:
        data["withheld"] = [commitment, commitment | {"field": "$.metrics.data_wait"}]
        data["environment"]["cards"][0]["name"] = ""
        data["metrics"]["data_wait"] = missing
        data["metrics"]["gradient_bytes"] = missing

    change(run, withhold)
    changed = [text.split()[0] for text in contradictions(run) if "checksum" in text]
    assert changed == ["metrics.gradient_bytes"]


def test_the_run_does_not_end_before_its_last_event(run: RunDirectory) -> None:
    def shorten(data: dict[str, Any]) -> None:
        last = data["metrics"]["spans"][-1]
        data["metrics"]["e2e_time_s"] -= last["seconds"] + 5
        last["start_s"], last["seconds"] = last["start_s"] - 5, 0.0

    change(run, shorten)
    assert any(text.startswith("RUN_STOP in events.jsonl (s) is ") for text in contradictions(run))


def test_the_telemetry_witnesses_how_long_training_took(run: RunDirectory) -> None:
    forget_checksums(run)
    file = run.telemetry(0)
    marks = [mark for mark in read_telemetry(file) if "mark" in mark]
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(marks[-1] | {"time_s": marks[-1]["time_s"] + 90}) + "\n")
    assert not any("marks" in text for text in contradictions(run)), "a second end is no end of this training"

    longer = file.read_text(encoding="utf-8").replace(json.dumps(marks[-1]) + "\n", "")
    file.write_text(longer, encoding="utf-8")
    assert any(text.startswith("telemetry-node0.jsonl: marks is ") for text in contradictions(run))


def test_the_log_repeats_the_events(run: RunDirectory) -> None:
    forget_checksums(run)
    # What other output broke is no event.
    with run.log(0).open("a", encoding="utf-8") as file:
        file.write("[PerfLog] {half a line\n")
    assert contradictions(run) == []

    change_event(run, "INIT_START", "later")
    [found] = contradictions(run)
    assert found.startswith('rank0.log has an event that events.jsonl does not have: {"event": "INIT_START"')


def test_an_imported_record_is_the_one_that_was_imported(tmp_path: Path) -> None:
    assert perf("report", "import", SEED, "--out", tmp_path / "imported").exception is None
    directory = min((tmp_path / "imported").iterdir())
    imported = RunDirectory(directory)
    assert (contradictions(imported), examine(read_record(directory), directory).notes) == ([], [])

    change(imported, lambda data: data["case"].update(target=0.5))
    changed = "record.json was changed after the import: sources.json has another checksum"
    assert contradictions(imported) == [changed]

    sources = directory / "sources.json"
    sources.write_text("{}", encoding="utf-8")
    assert contradictions(imported)[0].startswith("sources.json are no sources: ")
    sources.unlink()
    assert contradictions(imported) == []
    notes = examine(read_record(directory), directory).notes
    assert "without sources.json, nothing confirms what was imported" in notes


@pytest.mark.parametrize("name", ["events.jsonl", "telemetry-node0.jsonl"])
def test_a_record_without_a_checksum_of_what_its_run_wrote_was_edited(run: RunDirectory, name: str) -> None:
    run.path.joinpath(name).unlink()
    change(run, lambda data: data["evidence"].pop(name))

    assert contradictions(run) == [f"the record has no checksum of {name}, which the run wrote"]


def test_limits_that_contradict_themselves_are_not_passed_over(run: RunDirectory) -> None:
    limits = LimitsOfRun(
        limits_id="limits-1",
        sha256="0" * 64,
        created_at=read_record(run.record).created_at,
        cards=2,
        products_flops_per_s=1e15,
        peak_flops_per_s=Missing(missing="unknown"),
        bus_bytes_per_s=Missing(missing="unknown"),
    )
    run.write_record(read_record(run.record).model_copy(update={"machine_limits": limits}))
    forget_checksums(run)
    assert "without limits.json, nothing confirms machine_limits" in examine(read_record(run.record), run.path).notes

    (run.path / "limits.json").write_text("{}", encoding="utf-8")
    assert any(text.startswith("limits.json are no limits: ") for text in contradictions(run))


@pytest.mark.parametrize(
    "content",
    [
        *("garbage", "[]", "{}", '{"event": "SEED"}', '{"event": 1, "value": 1, "metadata": 1, "x": 1}'),
        '{"event": "SEED", "value": 1, "metadata": {}, "x": 1}',
    ],
)
def test_garbage_is_no_event_log(run: RunDirectory, content: str) -> None:
    forget_checksums(run)
    run.events.write_text(content + "\n", encoding="utf-8")

    assert contradictions(run)[0].startswith("events.jsonl is not an event log: ")


def test_telemetry_witnesses_the_record(run: RunDirectory) -> None:
    forget_checksums(run)
    file = run.telemetry(0)
    written = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r'"utilization_percent": [\d.]+', '"utilization_percent": 1.5', written), encoding="utf-8")

    assert any(text.startswith("metrics.power.mean_utilization_percent is ") for text in contradictions(run))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage\n",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"time_s": 1}\n',
        b'{"time_s": 1.0, "session": [1], "device": ["a"], "source": "s", "utilization_percent": 1.0}\n',
        b'{"time_s": 1.0, "device": "a", "source": "s", "utilization_percent": NaN}\n',
        b'{"time_s": 1.0, "device": "a", "source": "s", "memory_used_bytes": Infinity}\n',
        b'{"mark": "start"}\n{"time_s": 1.0, "device": "a", "source": 5, "utilization_percent": "x"}\n',
    ],
)
def test_what_is_no_telemetry_witnesses_nothing(run: RunDirectory, content: bytes) -> None:
    forget_checksums(run)
    run.telemetry(0).write_bytes(content)

    assert any("telemetry-node0.jsonl" in text for text in contradictions(run))


def test_reading_what_is_no_telemetry_ends_early(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chipperf.records.event_metrics.MOST_FAULTS", 3)
    read = []
    monkeypatch.setattr("chipperf.run.telemetry_process.upgrade_reading", read.append)
    run.telemetry(0).write_text("\n" * 1000 + "{}\n", encoding="utf-8")
    read_telemetry(run.telemetry(0))
    assert read == []


def test_missing_telemetry_is_said_also_without_its_checksum(run: RunDirectory) -> None:
    record = read_record(run.record)
    run.telemetry(0).unlink()
    left = {name: digest for name, digest in record.evidence.items() if "telemetry" not in name}
    run.write_record(record.model_copy(update={"evidence": left}))

    assert (
        "without telemetry-node0.jsonl, nothing confirms metrics.power"
        in examine(read_record(run.record), run.path).notes
    )


def test_a_case_that_is_not_installed_is_said(run: RunDirectory) -> None:
    record = read_record(run.record)
    run.write_record(record.model_copy(update={"case": record.case.model_copy(update={"version": "0.9"})}))

    [note] = examine(read_record(run.record), run.path).notes
    assert note.startswith("without case mobilenetv2 0.9, which is not installed, ")


def test_a_line_separator_in_a_text_ends_no_line(run: RunDirectory) -> None:
    forget_checksums(run)
    with run.events.open("a", encoding="utf-8") as file:
        file.write('{"event": "NOTE", "value": "a\u2028b\x85c", "metadata": {}}\n')

    assert contradictions(run) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metrics.curve.0.elapsed_s", 0.5),
        ("metrics.curve.0.details", {"top5": 0.9}),
        ("metrics.p_train.windows.0.epoch", 2),
        ("metrics.p_train", {"missing": "failed", "reason": ""}),
        ("metrics.p_core", {"missing": "not_applicable", "reason": ""}),
        ("metrics.power", {"missing": "failed", "reason": ""}),
        ("metrics.power.mean_utilization_percent", {"missing": "unknown", "reason": ""}),
    ],
)
def test_what_the_evidence_has_is_neither_changed_nor_missing(run: RunDirectory, field: str, value: object) -> None:
    content = json.loads(run.record.read_text(encoding="utf-8"))
    *parents, last = field.split(".")
    part = content
    for parent in parents:
        part = part[int(parent)] if parent.isdigit() else part[parent]
    part[last] = value
    run.record.write_text(json.dumps(content), encoding="utf-8")

    *_, shown = [name for name in field.split(".") if not name.isdigit()]
    assert any(shown in text and ".jsonl" in text for text in contradictions(run))


def test_a_slow_window_is_not_one_after_a_restart(run: RunDirectory) -> None:
    record = read_record(run.record)
    first, *windows = record.metrics.p_train.windows
    measured = record.metrics.p_train.model_copy(update={"windows": windows})
    metrics = record.metrics.model_copy(update={"p_train": measured, "restart_windows": [first]})
    run.write_record(record.model_copy(update={"metrics": metrics}))

    assert any("measured" in text and "restart" in text for text in contradictions(run))


def test_what_a_resumed_session_repeats_counts_once(run: RunDirectory) -> None:
    """The first session lost a window and an evaluation after its checkpoint; a restart without one lost everything."""
    forget_checksums(run)
    complete = events(run)
    begin = next(index for index, event in enumerate(complete) if event["event"] == "RUN_START") + 1
    head, body = complete[:begin], complete[begin:]
    lost = {"event": "EVAL_ACCURACY", "value": 0.99, "metadata": {"step": 5}}
    resumed = {"event": "RUN_RESUME", "value": 3, "metadata": {"step": 3}}
    before = [event for event in body if event["metadata"].get("step", 9) <= 3]
    after = [event for event in body if event["metadata"].get("step", 9) > 3]
    log = [*head, lost, *head, *before, lost, resumed, *head, *after]
    run.events.write_text("".join(json.dumps(event) + "\n" for event in log), encoding="utf-8")
    # The record has no interruptions, as it would if another run's events came before its own.
    assert contradictions(run) == ["RUN_START in events.jsonl is 3, interruptions allows at most 1"]


def test_sessions_do_not_last_longer_than_the_whole_run(run: RunDirectory) -> None:
    forget_checksums(run)
    record = read_record(run.record)
    cause = Failure(failure_class="interrupted", message="stopped")
    stopped = {"stopped_at": record.created_at, "resumed_at": record.created_at, "gap_seconds": 0.0}
    interruption = Interruption(**stopped, session_seconds=0.0, cause=cause, step=0, lost_steps=0)
    run.write_record(record.model_copy(update={"interruptions": [interruption]}))
    begin = next(place for place, each in enumerate(events(run)) if each["event"] == "RUN_START") + 1
    log = [*events(run)[:begin], *events(run)]
    log[begin - 1]["metadata"]["monotonic_ns"] += 10**12
    run.events.write_text("".join(json.dumps(event) + "\n" for event in log), encoding="utf-8")

    assert any(text.startswith("sessions in events.jsonl (s) is 10") for text in contradictions(run))


def test_verify_and_bundle_check_say_what_contradicts_and_what_is_missing(run: RunDirectory, tmp_path: Path) -> None:
    page, bundle = tmp_path / "README.md", tmp_path / "b.tar.gz"
    assert perf("report", run.path, "--out", page).exception is None
    commands = (("verify", page, "--runs", run.path), ("bundle", "check", bundle))

    pack([run.path], [page], bundle)
    for command in commands:
        assert perf(*command).exception is None

    change_event(run, "SEED", 6)
    # The command would refuse these files.
    pack([run.path], [page], bundle)
    for command in commands:
        result = perf(*command)
        assert result.exception.exit_code == 4
        assert "seed is 5, events.jsonl gives 6" in result.output
        assert "events.jsonl was changed after the run ended" in result.output
        assert json.loads(perf(*command, "--json").stdout)

    run.events.unlink()
    pack([run.path], [page], bundle)
    for command in commands:
        result = perf(*command)
        assert result.exception is None
        assert "events.jsonl is not there" in result.stderr
        assert "without events, nothing confirms windows, evaluations and the run's end" in result.stderr
