"""What the tables and the details of runs show, and that they say truly where it is from."""

from __future__ import annotations

import pytest
from chipperf.documents import format as formatting
from chipperf.languages import in_language
from chipperf.records.schema import Missing, Power, Record
from chipperf.records.store import read_record
from chipperf.report.comparability import SAME_ROW
from chipperf.web.board import COLUMNS, CONDITIONS, make_boards, summarize
from chipperf.web.details import describe
from example_records import MEASURED
from factory import throughput
from web_records import EXAMPLES, failed, field_of, make_run

RECORDS = (read_record(MEASURED), EXAMPLES[0], EXAMPLES[-1])
THROUGHPUTS = ("p_whole", "p_train", "p_core")


def cells(record: Record) -> dict[str, object]:
    return {column.name: cell for column, cell in zip(COLUMNS, summarize(record).cells, strict=True)}


def boards(*records: Record, most_rows: int = 100):
    return make_boards(map(summarize, records), most_rows=most_rows)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.run_id)
def test_every_value_is_in_the_field_that_it_names(record):
    facts = [fact.value for section in describe(record) for fact in section.facts]
    for cell in (*summarize(record).cells, *facts):
        value = field_of(record, cell.field)
        if isinstance(value, (int, float)) and not cell.field.endswith("quality"):
            assert cell.sort == value, cell.field
        if isinstance(value, str) and cell.field not in ("status.state", "environment.row_label", "created_at"):
            assert value in str(cell.text), cell.field


@pytest.mark.parametrize("name", THROUGHPUTS)
def test_throughput_is_that_of_the_record(name):
    record = make_run()
    cell = cells(record)[name]

    assert str(cell.text) == formatting.number(field_of(record, cell.field))
    assert cell.sort == field_of(record, cell.field)


def test_run_that_failed_shows_nothing_that_it_measured():
    record = failed("oom")
    row = summarize(record)
    shown = cells(record)

    assert row.throughputs == (None, None, None)
    assert row.curve == ()
    for name in (*THROUGHPUTS, "quality", "e2e_time", "mem", "time_to_target"):
        assert str(shown[name].text) == "failed (oom)"
        assert in_language(shown[name].text, "zh") == "失败(oom)"
        assert shown[name].field == "status"
    assert str(shown["verdict"].text) == "failed (oom)"
    measured = {"p_train, median", "p_core, median", "p_whole", "Device peak", "epochs"}
    facts = {str(fact.name): str(fact.value.text) for section in describe(record) for fact in section.facts}
    assert {facts[name] for name in measured} == {"failed (oom)"}
    assert facts["Message"] == "the device is full"


def test_run_without_a_device_is_linked_by_its_id():
    nameless = {
        "environment__card_short_name": {"missing": "not_run"},
        "environment__row_label": {"missing": "not_run"},
    }
    shown = cells(failed(run_id="early", **nameless))

    assert (shown["device"].text, shown["device"].field, shown["device"].missing) == ("early", "run_id", None)


@pytest.mark.parametrize(("state", "text"), [("interrupted", "interrupted"), ("failed", "failed (interrupted)")])
def test_a_cause_is_said_once(state: str, text: str):
    failure = {"failure_class": "interrupted", "message": "stopped by a signal (Ctrl-C or a scheduler)"}
    record = make_run(status={"state": state, "failure": failure})
    facts = {str(fact.name): fact.value.text for section in describe(record) for fact in section.facts}

    assert str(cells(record)["verdict"].text) == text
    assert in_language(facts["Message"], "zh") == "被信号终止（Ctrl-C 或调度系统）"


def test_reason_of_a_missing_value_is_in_the_language_of_the_page():
    missing = {"missing": "failed", "reason": "no telemetry was read"}
    facts = {
        str(fact.name): fact.value for section in describe(make_run(metrics__power=missing)) for fact in section.facts
    }

    assert in_language(facts["Power"].text, "zh") == "失败(没有读到遥测数据)"


@pytest.mark.parametrize(("rate", "cards", "text"), [(83.4, 1, "83.4"), (1234, 8, "154"), (137.64, 2, "68.82")])
def test_imported_rate_per_card_has_the_decimals_of_the_document(rate: float, cards: int, text: str):
    topology = {"nnodes": 1, "nproc_per_node": cards}
    (board,) = boards(make_run(kind="imported", topology=topology, metrics__p_core=rate))
    texts = {heading.name: cell.text for heading, cell in zip(board.columns, board.rows[0].cells, strict=True)}

    assert texts["per_card"] == text


@pytest.mark.parametrize("kind", ["not_run", "withheld", "not_applicable", "unknown"])
def test_missing_value_says_which_kind_it_is(kind):
    missing = Missing(missing=kind, reason="nda")
    cell = cells(make_run(metrics__p_whole=missing.model_dump()))["p_whole"]

    assert (cell.missing, cell.reason) == (kind, "nda")
    assert str(cell.text) == str(formatting.marker(missing))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"metrics__quality": 0.9}, "converged"),
        ({"metrics__quality": 0.1, "metrics__time_to_target": {"missing": "not_run"}}, "below_target"),
        ({"case__target": {"missing": "not_applicable"}}, "no_target"),
        ({"metrics__quality": {"missing": "unknown"}}, "unknown"),
        ({"status": {"state": "interrupted"}}, "not_completed"),
    ],
)
def test_verdict(changes, verdict):
    assert summarize(make_run(**changes)).verdict == verdict


def test_target_that_was_not_met_is_said_in_short():
    missing = {"missing": "failed", "reason": "not reached: best 0.1 in epoch 90, target 0.755"}
    cell = cells(make_run(metrics__quality=0.1, metrics__time_to_target=missing))["time_to_target"]

    assert (str(cell.text), cell.missing, cell.reason) == ("not reached", "failed", missing["reason"])


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "simulated"},
        {"kind": "imported"},
        {"case__name": "mobilenetv2"},
        {"case__version": "2.0"},
        {"dataset__name": "other"},
        {"dataset__version": "2"},
        {"dataset__fingerprint": "6" * 64},
        {"dataset__is_sample": True},
        {"metrics_definition": "flagperf"},
        {"metrics_version": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_runs_whose_numbers_mean_different_things_share_no_table(changes):
    assert len(boards(make_run(), make_run(run_id="run-2", **changes))) == 2


UNREAD = {"missing": "not_run", "reason": "the run did not come this far"}


def unread(name: str, version: object = UNREAD, **changes: object) -> Record:
    """Return a run that failed before it read its dataset."""
    data = {"name": name, "version": version, "fingerprint": UNREAD, "fingerprint_method": "", "is_sample": False}
    return failed(run_id="early", dataset=data, **changes)


@pytest.mark.parametrize(
    ("early", "of_table"),
    [
        # Earlier versions recorded the name of the directory.
        (unread("imagenet"), True),
        (unread("unknown"), True),
        (unread("sample", "1"), True),
        (unread("other", "1"), False),
        (unread("unknown", case__version="2.0"), False),
    ],
)
def test_run_that_failed_early_is_in_the_table_it_would_be_in_or_in_one_behind_it(early, of_table):
    found = boards(early, make_run(dataset__name="sample", dataset__version="1"))

    assert [[row.run_id for row in board.rows] for board in found] == (
        [["run-1", "early"]] if of_table else [["run-1"], ["early"]]
    )


def test_of_two_tables_a_run_that_failed_early_is_in_neither():
    found = boards(unread("unknown"), make_run(), make_run(run_id="run-2", dataset__name="other"))

    assert [[row.run_id for row in board.rows] for board in found][-1] == ["early"]
    assert len(found) == 3


def test_whole_runs_that_converged_come_first():
    records = [
        make_run(run_id="failed", status={"state": "failed"}),
        make_run(run_id="short", limits={"max_epochs": 1}),
        make_run(run_id="below", metrics__quality=0.1, metrics__time_to_target={"missing": "not_run"}),
        make_run(run_id="slow", metrics__p_core=1.0, metrics__p_train=1.0, metrics__p_whole=1.0),
        make_run(run_id="fast"),
    ]
    (board,) = boards(*records)

    assert [row.run_id for row in board.rows] == ["fast", "slow", "below", "short", "failed"]


def ranks(*records: Record) -> dict[str, tuple[int, int] | None]:
    (board,) = boards(*records)
    return {row.run_id: rank for row, rank in zip(board.rows, board.ranks, strict=True)}


def test_table_in_which_no_two_runs_are_ranked_together_has_no_ranks():
    apart = [make_run(run_id=f"{cards}", topology={"nnodes": 1, "nproc_per_node": cards}) for cards in (1, 8)]
    (board,) = boards(*apart)
    (ranked,) = boards(*apart, make_run(run_id="slow", topology={"nnodes": 1, "nproc_per_node": 8}))

    assert (board.ranks, board.is_ranked) == (((1, 1), (1, 1)), False)
    assert ranked.is_ranked


def test_rank_is_among_the_full_runs_that_converged():
    below = {"metrics__quality": 0.1, "metrics__time_to_target": {"missing": "not_run"}}
    records = [
        make_run(run_id="slow", metrics__p_core=8000.0),
        make_run(run_id="fast", metrics__p_core=9000.0),
        make_run(run_id="as fast", metrics__p_core=9000.0),
        make_run(run_id="below", metrics__p_core=9500.0, **below),
        make_run(run_id="short", metrics__p_core=9500.0, limits={"max_epochs": 80}),
        make_run(run_id="unknown", metrics__p_core={"missing": "unknown"}),
        failed(run_id="failed", metrics__p_core=9500.0),
    ]

    assert ranks(*records) == {
        **{"fast": (1, 3), "as fast": (1, 3), "slow": (3, 3)},
        **dict.fromkeys(("below", "short", "unknown", "failed")),
    }


def test_digits_below_the_spread_decide_no_rank():
    records = [
        make_run(run_id=name, metrics__p_core=throughput(rate, spread=0.09))
        for name, rate in (("one", 1003.0), ("other", 1003.4), ("faster", 1100.0))
    ]

    assert ranks(*records) == {"faster": (1, 3), "one": (2, 3), "other": (2, 3)}


PART = {"rank": 0, "name": "A1", "uuid": "u", "pci_bus_id": "p", "total_bytes": 5 * 2**30, "part": "1g.5gb"}
OTHER_CONDITIONS = {
    "parts of cards": {"environment__cards": [PART]},
    "requested precisions": {"precision__requested": "amp"},
    "effective precisions": {"precision__effective": "tf32"},
    "presets": {"case__preset": "demo"},
    "lengths": {"limits": {"max_steps": 100}},
    "evaluated samples": {"metrics__curve": [], "dataset__eval_samples": 49_000},
}


def test_conditions_are_those_of_a_row_that_are_not_the_device_itself():
    assert set(CONDITIONS) - {"evaluated samples"} < set(SAME_ROW)
    assert set(CONDITIONS) == set(OTHER_CONDITIONS)


@pytest.mark.parametrize("fact", OTHER_CONDITIONS)
def test_other_conditions_are_told_and_have_ranks_of_their_own(fact):
    one, other = make_run(run_id="one"), make_run(run_id="other", **OTHER_CONDITIONS[fact])
    texts = [dict(zip(CONDITIONS, summarize(run).conditions, strict=True)) for run in (one, other)]

    assert [name for name in CONDITIONS if texts[0][name] != texts[1][name]] == [fact]
    assert ranks(one, other)["one"] == (1, 1)


def test_other_number_of_cards_has_ranks_of_its_own():
    assert ranks(make_run(), make_run(run_id="2x8", topology={"nnodes": 2, "nproc_per_node": 8})) == {
        "run-1": (1, 1),
        "2x8": (1, 1),
    }


def test_part_of_a_card_is_told():
    assert (summarize(make_run(environment__cards=[PART])).part, summarize(make_run()).part) == ("1g.5gb", "")


def test_throughput_per_card_is_of_all_cards():
    cell = cells(make_run(metrics__p_core=9844.0, topology={"nnodes": 2, "nproc_per_node": 8}))["per_card"]

    assert (cell.sort, cell.field) == (615.25, "metrics.p_core")


def column(name: str, *records: Record) -> list[str]:
    (board,) = boards(*records)
    place = [heading.name for heading in board.columns].index(name)
    return [str(row.cells[place].text) for row in board.rows]


@pytest.mark.parametrize(
    ("name", "values", "texts"),
    [
        ("p_whole", (12345.678, 912.34), ["12346", "912"]),
        ("p_whole", (12345.678, 8.2737), ["12345.68", "8.27"]),
        ("p_whole", (92.5, 9.25), ["92.500", "9.250"]),
        ("quality", (0.7581, 0.75), ["75.81%", "75.00%"]),
    ],
)
def test_numbers_of_a_column_have_equal_decimals(name, values, texts):
    records = [make_run(run_id=f"run-{value}", **{f"metrics__{name}": value}) for value in values]

    assert sorted(column(name, *records)) == sorted(texts)


def test_number_has_no_digits_below_its_spread():
    assert column("p_train", make_run(metrics__p_train=throughput(137.64, spread=0.16))) == ["138"]


def test_imported_numbers_are_as_they_were_written():
    records = [make_run(run_id=f"{rate}", kind="imported", metrics__p_whole=rate) for rate in (137.64, 137.6)]

    assert column("p_whole", *records) == ["137.64", "137.6"]


def test_column_without_any_value_is_left_out_and_named():
    unknown = {"metrics__p_whole": {"missing": "unknown"}}
    (board,) = boards(make_run(**unknown), failed(run_id="failed"))
    (withheld,) = boards(make_run(metrics__p_whole={"missing": "withheld", "reason": "nda"}))
    (one,) = boards(make_run(), make_run(run_id="run-2", **unknown))

    assert "p_whole" in [heading.name for heading in board.blank]
    assert {"p_whole"} <= {heading.name for heading in withheld.columns} & {heading.name for heading in one.columns}
    assert [len(row.cells) for row in board.rows] == [len(board.columns)] * 2


def test_most_rows_are_shared_and_what_is_left_out_is_counted():
    large = [make_run(run_id=f"run-{number}") for number in range(8)]
    small = [make_run(run_id=f"other-{number}", case__name="mobilenetv2") for number in range(2)]
    mobilenetv2, resnet50 = boards(*large, *small, most_rows=5)

    assert (len(mobilenetv2.rows), mobilenetv2.omitted) == (2, 0)
    assert (len(resnet50.rows), resnet50.omitted) == (3, 5)


def test_case_that_is_not_installed_is_shown_all_the_same():
    record = make_run(case__name="elsewhere", case__metric="bleu", metrics__quality=0.25)
    (board,) = boards(record)

    assert board.quality_column == "bleu"
    assert str(cells(record)["quality"].text) == "0.2500"
    assert cells(record)["fix_hp"].reason == "case elsewhere is not installed here"
    assert describe(record)


def test_device_of_a_simulated_run_says_so():
    assert str(cells(make_run(kind="simulated"))["device"].text) == "simulated A1"
    assert summarize(make_run(kind="simulated")).label.startswith("simulated A1")


def test_section_is_bounded():
    warnings = next(each for each in describe(make_run(warnings=["w"] * 1000)) if str(each.title) == "Warnings")

    assert len(warnings.facts) + warnings.omitted == 1000
    assert len(warnings.facts) == 200


def test_no_condition_has_a_line_break():
    record = make_run(precision__effective="bf16\nfull")

    assert summarize(record).conditions[2] == "bf16 full"


LIMITS = {
    **{"limits_id": "l", "sha256": "5" * 64, "created_at": "2026-01-01T10:00:00Z", "cards": 8},
    **{"products_flops_per_s": 800e12, "peak_flops_per_s": 1000e12, "bus_bytes_per_s": 200e9},
}


def test_shares_of_limits_and_energy_are_columns_where_a_run_has_them():
    of_training = dict.fromkeys(Power.model_fields, {"missing": "unknown"}) | {
        "samples": 90,
        "source": "x",
        "energy_j": make_run().metrics.train_samples * 2.0,
    }
    (board,) = boards(make_run(metrics__power=of_training, metrics__forward_flops=4e9, machine_limits=LIMITS))
    shown = {heading.name: str(cell.text) for heading, cell in zip(board.columns, board.rows[0].cells, strict=True)}

    assert shown["energy_per_sample"] == "2.0000"
    assert shown["mfu"].endswith("%")
    assert shown["peak_share"].endswith("%")
