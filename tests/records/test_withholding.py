"""Values that a vendor withholds, and proves later."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from chipperf.cli.main import app
from chipperf.errors import RecordError, UsageError
from chipperf.records.schema import Missing
from chipperf.records.store import read_record
from chipperf.records.withholding import commitment, fill_in, json_path, read_secrets, reveal, withhold
from chipperf.report.render import render_report
from chipperf.run.directory import RunDirectory
from curve_records import curve
from factory import UNKNOWN, make_record, throughput
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

TELLING = [f"$.metrics.{name}" for name in ("data_stall", "best_quality", "time_to_target")]
MARKERS = {"zh": "未公开(under embargo)", "en": "withheld (under embargo)"}


def perf(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    RunDirectory(directory).write_record(make_record(run_id="r-1"))
    (directory / "events.jsonl").write_text('{"p_core": 4659.0}\n')
    return directory


@pytest.fixture
def public(run, tmp_path):
    """The record without two values and what tells them; its private file lies in the run's directory."""
    options = ("--field", "metrics.p_core", "--field", "$.metrics.quality", "--reason", "under embargo")
    result = perf("withhold", run, *options, "--out", tmp_path / "public")
    assert result.exception is None, result.output
    return tmp_path / "public"


@pytest.fixture
def private(run, public):
    return run / "public.secrets.json"


def test_the_public_record_has_a_commitment_in_place_of_the_value(run, public):
    record = read_record(public)
    withheld = Missing(missing="withheld", reason="under embargo")
    assert (record.metrics.p_core, record.metrics.quality) == (withheld, withheld)
    assert [each.field for each in record.withheld] == ["$.metrics.p_core", "$.metrics.quality", *TELLING]
    assert record.metrics.p_whole == read_record(run).metrics.p_whole


def test_nothing_public_tells_the_value(public):
    assert {path.name for path in public.iterdir()} == {"record.json"}
    text = (public / "record.json").read_text(encoding="utf-8")
    assert "4659" not in text
    assert "0.7561" not in text


def test_what_tells_a_value_is_withheld_with_it_and_named(run, tmp_path):
    result = perf("withhold", run, "--field", "metrics.p_core", "--reason", "nda", "--out", tmp_path / "p")
    assert "also withheld $.metrics.data_stall, which reveals $.metrics.p_core" in result.output
    record = read_record(tmp_path / "p")
    assert isinstance(record.metrics.data_stall, Missing)
    assert record.metrics.p_train == read_record(run).metrics.p_train


def test_what_only_estimates_a_value_is_named(run, tmp_path):
    result = perf("withhold", run, "--field", "metrics.p_train", "--reason", "nda", "--out", tmp_path / "p")
    assert "still has $.metrics.p_whole, which reveals $.metrics.p_train" in result.output
    assert read_record(tmp_path / "p").metrics.p_whole == read_record(run).metrics.p_whole


def test_what_tells_a_value_can_be_kept(run, tmp_path):
    options = ("--field", "metrics.p_core", "--keep", "metrics.data_stall", "--reason", "nda")
    result = perf("withhold", run, *options, "--out", tmp_path / "p")
    assert "note: the record still has $.metrics.data_stall, which reveals $.metrics.p_core" in result.output
    assert read_record(tmp_path / "p").metrics.data_stall == read_record(run).metrics.data_stall


SPANS = [{"name": "train", "start_s": 0.0, "seconds": 9.0}]
POWER = {"samples": 9, "mean_w": 300.0, "max_w": 400.0, "energy_j": 2700.0, "used_peak_bytes": 1}
POWER |= dict.fromkeys(("mean_temperature_c", "max_temperature_c", "mean_utilization_percent"), UNKNOWN) | {
    "source": "x"
}
CARD = {"rank": 0, "name": "ACME-X500", "uuid": UNKNOWN, "pci_bus_id": UNKNOWN, "total_bytes": UNKNOWN}


@pytest.mark.parametrize(
    ("field", "changes", "also"),
    [
        ("metrics.p_train", {}, ["metrics.data_stall"]),
        ("metrics.data_stall", {}, ["metrics.p_core"]),
        ("metrics.p_whole", curve([0.1, 0.2]), ["metrics.curve", "metrics.train_seconds"]),
        ("metrics.p_whole", {"metrics__spans": SPANS}, ["metrics.spans", "metrics.train_seconds"]),
        ("metrics.train_seconds", curve([0.1, 0.2]), ["metrics.curve", "metrics.p_whole"]),
        ("metrics.train_seconds", {"metrics__power": POWER}, ["metrics.p_whole", "metrics.power.energy_j"]),
        ("metrics.p_whole", {"metrics__power": POWER}, ["metrics.power.energy_j", "metrics.train_seconds"]),
        ("metrics.power.energy_j", {"metrics__power": POWER}, ["metrics.power.mean_w"]),
        ("metrics.e2e_time_s", {"metrics__spans": SPANS}, ["metrics.spans"]),
        ("metrics.curve", curve([0.1, 0.2]), ["metrics.best_quality", "metrics.quality", "metrics.time_to_target"]),
        ("metrics.steps", curve([0.1, 0.2]), ["metrics.curve", "metrics.p_train.windows", "metrics.train_samples"]),
        ("metrics.steps", {"metrics__train_samples": UNKNOWN}, ["metrics.epochs", "metrics.p_train.windows"]),
        ("environment.card_title", {}, ["environment.card_short_name", "environment.cards", "environment.row_label"]),
        ("metrics.steps", {}, ["metrics.p_core.windows"]),
        ("metrics.memory", {"metrics__power": POWER | {"used_peak_bytes": 7}}, ["metrics.power.used_peak_bytes"]),
        ("metrics.steps", {}, ["metrics.epochs", "metrics.p_whole", "metrics.train_samples"]),
        ("metrics.train_samples", curve([0.1, 0.2]), ["metrics.curve", "metrics.p_train.windows", "metrics.p_whole"]),
        ("environment.driver", {"environment__driver": "535.9.1", "loader__resize": "by 535.9.1"}, ["loader"]),
        ("environment.cards", {"warnings": ["the ACME-X500 is hot"]}, ["warnings"]),
        ("environment.driver", {"environment__driver": "535.9.1", "remarks": ["driver: 535.9.1"]}, ["remarks"]),
        ("metrics.e2e_time_s", {"metrics__e2e_time_s": 61234.56, "warnings": ["took 6.123e+04 s"]}, ["warnings"]),
        ("metrics.quality", {"metrics__quality": 0.1449, "warnings": ["best 0.1449"]}, ["warnings"]),
    ],
)
def test_a_value_is_withheld_with_all_that_tells_it(field, changes, also):
    record = make_record(**{"environment__cards": [CARD]} | changes)
    result = withhold(record, [field], "nda")
    found = {withheld.removeprefix("$.") for withheld, told in result.also if told == f"$.{field}"}
    assert set(also) <= found
    assert [each.problem for each in reveal(result.record, result.secrets)] == [None] * (len(found) + 1)


def test_of_a_real_run_neither_speed_nor_stall_can_be_computed():
    record = read_record(Path(__file__).parents[2] / "docs" / "examples" / "detr-cpu")
    for field in ("metrics.p_core", "metrics.data_stall"):
        metrics = withhold(record, [field], "nda").record.metrics
        assert metrics.p_train == record.metrics.p_train
        assert {type(each) for each in (metrics.p_core, metrics.data_stall, metrics.step_breakdown)} == {Missing}


def test_other_versions_and_digits_are_not_the_value():
    changes = {"environment__driver": "535.9.1", "warnings": ["runtime 1535.9.1", "535.9.1.1", "535.9.12"]}
    assert withhold(make_record(**changes), ["environment.driver"], "nda").also == ()


@pytest.mark.parametrize(
    ("field", "changes", "by"),
    [
        ("seed", {"seed": 7, "hyperparameters__values": {"seed": 7}}, "hyperparameters.values.seed"),
        ("hyperparameters.global_batch_size", {"hyperparameters__values": {"batch_size": 8}}, "values.batch_size"),
        ("metrics.steps", {"limits__max_steps": 5}, "limits.max_steps"),
        ("environment.driver", {"environment__driver": "535.9.1", "run_id": "acme-535.9.1"}, "run_id"),
    ],
)
def test_a_value_that_is_told_by_what_every_record_needs_is_refused(field, changes, by):
    record = make_record(**changes)
    with pytest.raises(UsageError, match=rf"\.{field} cannot be withheld: \$\..*{by} reveals it") as refused:
        withhold(record, [field], "nda")
    kept = refused.value.hint.split()[-1]
    assert (f"$.{kept}", f"$.{field}") in withhold(record, [field], "nda", keep=[kept]).still_told


def test_values_of_values_are_revealed():
    record = make_record(**curve([0.1, 0.2]))
    result = withhold(record, ["metrics.p_train.windows", "metrics.p_train"], "nda")
    assert fill_in(result.record, result.secrets).metrics == record.metrics


def test_no_values_are_an_error(public, private):
    content = json.loads(private.read_text(encoding="utf-8"))
    private.write_text(json.dumps(content | {"values": []}), encoding="utf-8")
    result = perf("reveal", public, "--secrets", private)
    assert result.exception.exit_code == 2
    assert "there are no values of run r-1" in result.exception.message


def test_what_remains_withheld_is_named(public, private):
    result = perf("reveal", public, "--secrets", private, "--field", "metrics.quality")
    assert "note: $.metrics.p_core remains withheld" in result.stderr
    assert "remains withheld" not in perf("reveal", public, "--secrets", private).stderr


def test_the_run_itself_stays_as_it_is(run, tmp_path):
    before = (run / "record.json").read_bytes()
    perf("withhold", run, "--field", "metrics.p_core", "--reason", "nda", "--out", tmp_path / "p")
    assert (run / "record.json").read_bytes() == before


def test_only_the_owner_may_read_the_private_file(private):
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


@pytest.mark.parametrize("existing", ["public", "run/public.secrets.json"])
def test_nothing_is_overwritten(run, tmp_path, existing):
    (tmp_path / existing).write_text("kept")
    result = perf("withhold", run, "--field", "metrics.p_core", "--reason", "nda", "--out", tmp_path / "public")
    assert result.exception.exit_code == 2
    assert (tmp_path / existing).read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"run", existing.split("/")[0]}


@pytest.mark.parametrize("secrets", ["to/p/secrets.json", "to/secrets.json", "run/../to/p/x/s.json", "link/s.json"])
def test_the_private_file_cannot_lie_in_or_beside_what_is_published(run, tmp_path, secrets):
    (tmp_path / "to").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "to")
    options = ("--field", "metrics.p_core", "--reason", "nda", "--out", tmp_path / "to" / "p")
    result = perf("withhold", run, *options, "--secrets", tmp_path / secrets)
    assert "would be in or beside the published directory" in result.exception.message
    assert not list((tmp_path / "to").iterdir())


def test_the_private_file_of_a_record_alone_is_not_put_beside_the_public_one(run, tmp_path):
    options = ("--field", "metrics.p_core", "--reason", "nda", "--out", run / "public")
    result = perf("withhold", run / "record.json", *options)
    assert "would be in or beside the published directory" in result.exception.message
    assert not (run / "public").exists()


def test_a_revealed_value_is_as_committed(public, private):
    result = perf("reveal", public, "--secrets", private, "--json")
    assert result.exception is None
    revealed = {each["field"]: each for each in json.loads(result.stdout)}
    assert revealed["$.metrics.quality"] == {"field": "$.metrics.quality", "value": 0.7561, "problem": None}
    assert revealed["$.metrics.p_core"]["value"]["median"] == 4659.0


def test_values_are_shown_shortly(public, private):
    lines = perf("reveal", public, "--secrets", private).stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["$.metrics.p_core", "4659.0", "as", "committed"],
        ["$.metrics.quality", "0.7561", "as", "committed"],
    ]


def test_one_value_can_be_passed_on_without_the_others(public, private, tmp_path):
    part = tmp_path / "part.json"
    perf("reveal", public, "--secrets", private, "--field", "metrics.quality", "--out", part)
    assert [value.field for value in read_secrets(part).values] == ["$.metrics.quality"]
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
    assert perf("reveal", public, "--secrets", part).exception is None
    assert (
        "has no $.metrics.p_core"
        in perf("reveal", public, "--secrets", part, "--field", "metrics.p_core").exception.message
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda secret: secret.update(value=0.7562), "not the value"),
        (lambda secret: secret.update(value="0.7561"), "not the value"),
        (lambda secret: secret.update(salt="0" * 64), "not the value"),
        (lambda secret: secret.update(field="$.metrics.p_whole"), "does not withhold it"),
    ],
)
def test_another_value_is_found(public, private, change, problem):
    content = json.loads(private.read_text(encoding="utf-8"))
    change(content["values"][1])
    private.write_text(json.dumps(content), encoding="utf-8")
    result = perf("reveal", public, "--secrets", private)
    assert result.exception.exit_code == 4
    assert problem in result.exception.message


def test_values_of_another_run_are_refused(public, private, tmp_path):
    other = read_record(public).model_copy(update={"run_id": "other"})
    with pytest.raises(UsageError, match="of run r-1, the record of other"):
        reveal(other, read_secrets(private))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_report_shows_marker_reason_and_commitment(public, language):
    record = read_record(public)
    page = render_report([record], language=language)
    (row,) = (line for line in page.splitlines() if "| 28661 |" in line)
    assert row.count(MARKERS[language]) == 2
    for each in record.withheld:
        assert f"| {each.field} | under embargo | {each.sha256} |" in page


def test_a_report_without_withheld_values_has_no_section_about_them():
    assert "Commitment" not in render_report([make_record()], language="en")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_such_a_report_is_verified_linted_and_compared(run, public, language, tmp_path):
    page = tmp_path / "README.md"
    perf("report", public, "--lang", language, "--out", page)
    assert perf("verify", page, "--runs", public).exception is None
    assert perf("lint", page, "--against", public).exception is None
    assert "withheld" in perf("compare", run, public).output
    assert perf("bundle", public, "--report", page, "--out", tmp_path / "b.tar.gz").exception is None


@pytest.fixture
def with_ratio(run, tmp_path):
    """The record without p_core but with its ratio to that of a faster run, which is withheld, too."""
    faster = tmp_path / "faster"
    faster.mkdir()
    RunDirectory(faster).write_record(make_record(run_id="faster", metrics__p_core=throughput(6000.0)))
    options = ("--field", "metrics.p_core", "--reason", "under embargo")
    for name, base in (("public", faster), ("public-faster", run)):
        source = run if name == "public" else faster
        result = perf("withhold", source, *options, "--ratio-to", base, "--out", tmp_path / name)
        assert "anybody who knows the value" in result.output
    return tmp_path / "public"


@pytest.mark.parametrize(("language", "text"), [("zh", "faster 的 0.7765 倍"), ("en", "0.7765 of faster")])
def test_a_ratio_can_be_published(with_ratio, language, text):
    page = render_report([read_record(with_ratio)], language=language)
    assert f"| {text} |" in page
    assert "4659" not in (with_ratio / "record.json").read_text(encoding="utf-8")


def test_a_ratio_is_checked_against_the_other_run(with_ratio, tmp_path):
    secrets = ("--secrets", tmp_path / "run" / "public.secrets.json")
    assert perf("reveal", with_ratio, *secrets).exception is None
    assert perf("reveal", with_ratio, *secrets, "--ratio-to", tmp_path / "faster").exception is None
    withheld = ("--ratio-to", tmp_path / "public-faster")
    others = ("--ratio-secrets", tmp_path / "faster" / "public-faster.secrets.json")
    assert perf("reveal", with_ratio, *secrets, *withheld, *others).exception is None
    assert "has no ratio to that of run faster" in perf("reveal", with_ratio, *secrets, *withheld).exception.message


def test_a_wrong_ratio_is_found(with_ratio, tmp_path):
    file = with_ratio / "record.json"
    file.write_text(file.read_text(encoding="utf-8").replace("0.7765", "0.9765"), encoding="utf-8")
    options = ("--secrets", tmp_path / "run" / "public.secrets.json", "--ratio-to", tmp_path / "faster")
    result = perf("reveal", with_ratio, *options)
    assert result.exception.exit_code == 4
    assert "$.metrics.p_core: its ratio is 0.7765, and not 0.9765" in result.exception.message


def test_a_ratio_to_another_run_than_stated_is_refused(with_ratio, tmp_path):
    third = tmp_path / "third"
    third.mkdir()
    RunDirectory(third).write_record(make_record(run_id="third"))
    options = ("--secrets", tmp_path / "run" / "public.secrets.json", "--ratio-to", third)
    assert "is to run faster, not third" in perf("reveal", with_ratio, *options).exception.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run_id": "r-1"}, "no ratio to itself"),
        ({"run_id": "b", "metrics__p_core": UNKNOWN}, "has no ratio to that of run b"),
        ({"run_id": "b", "metrics__p_core": 0.0}, "has no ratio to that of run b"),
        ({"run_id": "b", "metrics__p_core": 1e-308}, "has no ratio to that of run b"),
        ({"run_id": "b", "dataset__name": "other"}, "of several datasets"),
    ],
)
def test_a_run_that_there_is_no_ratio_to_is_refused(run, tmp_path, changes, message):
    base = tmp_path / "base"
    base.mkdir()
    RunDirectory(base).write_record(make_record(**changes))
    options = ("--field", "metrics.p_core", "--reason", "nda", "--out", tmp_path / "public")
    result = perf("withhold", run, *options, "--ratio-to", base)
    assert message in result.exception.message
    assert not (tmp_path / "public").exists()


def test_a_withheld_list_is_empty_and_revealed():
    result = withhold(make_record(**curve([0.1, 0.2])), ["metrics.curve"], "nda")
    assert result.record.metrics.curve == []
    assert reveal(result.record, result.secrets)[0].problem is None
    assert len(result.secrets.values[0].value) == 2


def test_values_can_be_withheld_one_after_another():
    first = withhold(make_record(), ["metrics.p_core"], "nda")
    second = withhold(first.record, ["environment.driver"], "secret")
    assert [each.field for each in second.record.withheld] == ["$.metrics.p_core", TELLING[0], "$.environment.driver"]
    for secrets, count in ((first.secrets, 2), (second.secrets, 1)):
        assert [each.problem for each in reveal(second.record, secrets)] == [None] * count


def test_equal_values_have_different_commitments():
    commitments = {withhold(make_record(), ["metrics.p_core"], "nda").record.withheld[0].sha256 for _ in range(3)}
    assert len(commitments) == 3


def test_a_commitment_is_defined_for_other_programs():
    """Computed with coreutils: printf '{"field":"$.x","run_id":"r","salt":"00","value":[1.5,"ü"]}' | sha256sum."""
    expected = "41897a9d088659f9a57eeb89ef7827f91047d3b492f930c274615550ca18e192"
    assert commitment("r", "$.x", [1.5, "ü"], "00") == expected


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("metrics.nothing", "the record has no"),
        ("metrics.p_core.median.x", "the record has no"),
        ("knobs[7]", "the record has no"),
        ("case.name", "cannot be withheld"),
        ("hyperparameters.values", "cannot be withheld"),
        ("run_id", "cannot be withheld"),
        ("metrics.power", "has no value"),
        ("interruptions", "has no value"),
        ("", "is no field"),
        ("metrics..p_core", "is no field"),
        ("metrics p_core", "is no field"),
    ],
)
def test_what_cannot_be_withheld_is_refused(field, message):
    with pytest.raises(UsageError, match=message):
        withhold(make_record(metrics__power=UNKNOWN), [field], "nda")


def test_a_reason_is_needed():
    with pytest.raises(UsageError, match="no reason"):
        withhold(make_record(), ["metrics.p_core"], " ")


@pytest.mark.parametrize("text", ["metrics.p_core", "$.metrics.p_core"])
def test_a_field_is_a_json_path(text):
    assert json_path(text) == "$.metrics.p_core"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.text(max_size=20) | st.from_regex(r"\$?[a-z_.\[\]0-9]{1,20}", fullmatch=True))
def test_no_field_leads_to_anything_but_an_answer(text):
    try:
        assert withhold(make_record(), [text], "nda").record.withheld
    except UsageError:
        return


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"run_id": "r", "values": [{}]}', b"[" * 10**5])
def test_what_is_no_private_file_is_refused_with_the_place(tmp_path, content):
    file = tmp_path / "s.json"
    file.write_bytes(content)
    with pytest.raises(RecordError, match=r"s\.json: "):
        read_secrets(file)
