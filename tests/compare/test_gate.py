"""The regression gate: what it decides, and what it refuses to judge."""

from __future__ import annotations

import pytest
from chipperf.compare.comparison import compare_columns
from chipperf.compare.gate import decide, enough_repeats, judge
from chipperf.compare.requirements import MOST_REPEATS, RequiredRatio, describe_judgment, parse_requirements
from chipperf.compare.sides import Side
from chipperf.errors import UsageError
from chipperf.records.intervals import Interval
from factory import GIB, UNKNOWN, make_record, throughput, throughput_of

LEAST = RequiredRatio(measure="p_core", bound="at_least", ratio=0.97)
MOST = RequiredRatio(measure="mem_peak", bound="at_most", ratio=1.05)
SLICE = {"rank": 0, "name": "A1", "uuid": "1", "pci_bus_id": "2", "total_bytes": 2**34, "part": "sGPU 25%"}


def core(middle: float, spread: float = 0.002) -> dict:
    return {"metrics__p_core": throughput(middle, spread=spread)}


def measured(middle: float, place: int) -> dict:
    """Return windows around ``middle`` that are those of no other run."""
    return core(middle + place / 1000)


def repeats(count: int, name: str, middle: float = 1000.0, **changes) -> Side:
    records = tuple(
        make_record(run_id=f"{name}{seed}", seed=seed, **measured(middle, ord(name) * 10 + seed), **changes)
        for seed in range(count)
    )
    return Side(records=records, planned=count, source=name)


def judged(base, other, *requirements):
    sides = [each if isinstance(each, Side) else Side(records=(each,), source="run") for each in (base, other)]
    return judge(compare_columns(sides), requirements or (LEAST,))


def run(name="run", **changes):
    return make_record(run_id=name, **{**measured(1000.0, len(name)), **changes})


@pytest.mark.parametrize(
    ("bound", "low", "high", "verdict"),
    [
        ("at_least", 0.97, 0.99, "met"),
        ("at_least", 0.969, 0.99, "undecided"),
        ("at_least", 0.90, 0.97, "undecided"),
        ("at_least", 0.90, 0.969, "not_met"),
        ("at_most", 0.90, 0.97, "met"),
        ("at_most", 0.90, 0.971, "undecided"),
        ("at_most", 0.97, 1.2, "undecided"),
        ("at_most", 0.971, 1.2, "not_met"),
    ],
)
def test_only_a_whole_interval_decides(bound, low, high, verdict):
    requirement = RequiredRatio(measure="p_core", bound=bound, ratio=0.97)

    assert decide(requirement, Interval(low=low, high=high)) == verdict
    assert decide(requirement, None) == "undecided"


@pytest.mark.parametrize(("rate", "verdict"), [(1001.0, "met"), (971.0, "undecided"), (900.0, "not_met")])
def test_a_run_is_judged_by_the_interval_that_a_comparison_shows(rate, verdict):
    base, other = run("base", **core(1000.0, 0.004)), run(**core(rate, 0.004))
    comparison = compare_columns([Side(records=(base,)), Side(records=(other,))])
    (found,) = judge(comparison, (LEAST,))
    cell = next(each for each in comparison.measures if each.name == "p_core").cells[1]

    assert found.verdict == verdict
    assert (found.ratio, found.interval) == (cell.ratio, cell.interval)
    assert found.interval is not None


def test_every_run_is_judged_by_the_first():
    sides = [Side(records=(run(name, **core(rate)),)) for name, rate in (("a", 1000.0), ("b", 990.0), ("c", 900.0))]
    found = judge(compare_columns(sides), (LEAST,))

    assert [(each.column, each.verdict) for each in found] == [(2, "met"), (3, "not_met")]


def test_single_values_decide_nothing_and_three_repeats_do():
    heavier = {"metrics__memory__device_peak_bytes": 30 * GIB}
    (single,) = judged(run("base"), run(**heavier), MOST)
    (repeated,) = judged(repeats(3, "a"), repeats(3, "b", **heavier), MOST)

    assert (single.verdict, single.interval, single.enough_repeats) == ("undecided", None, (3, 3))
    assert "not decidable: more repeats" in describe_judgment(single)
    assert "at least 3 repeats of the baseline and 3 of the run; there are 1 and 1" in describe_judgment(single)
    assert repeated.verdict == "not_met"


@pytest.mark.parametrize(
    ("ratio", "low", "high", "repeats", "expected"),
    [
        # The half of the interval is the distance: twice as many repeats for a power of 0.8, (1.96 + 0.84)² / 1.96².
        (0.99, 0.97, 1.01, (10, 5), (21, 11)),
        (0.95, 0.93, 0.97, (10, 5), (21, 11)),
        (0.99, 0.95, 1.03, (3, 3), (25, 25)),
        (0.971, 0.96, 0.98, (3, 3), None),
        (0.97, 0.96, 0.98, (3, 3), None),
    ],
)
def test_number_of_repeats_grows_with_the_square_of_what_is_lacking(ratio, low, high, repeats, expected):
    found = enough_repeats(LEAST, ratio, Interval(low=low, high=high), repeats)

    assert found == expected
    assert found is None or max(found) <= MOST_REPEATS


def test_one_run_is_said_to_tell_nothing_of_others():
    (found,) = judged(run("base"), run())
    (repeated,) = judged(repeats(3, "a"), repeats(3, "b"))

    assert "one run says nothing about other runs" in describe_judgment(found)
    assert "one run" not in describe_judgment(repeated)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision__requested": "amp"}, "requested precisions: amp, fp32"),
        ({"precision__effective": "tf32"}, "effective precisions: fp32, tf32"),
        ({"environment__row_label": "A2"}, "devices: A1, A2"),
        ({"environment__cards": [SLICE]}, "parts of cards"),
        ({"vendor__name": "other"}, "vendors: acme, other"),
        ({"topology__nnodes": 2}, "topologies: 1x8, 2x8"),
        ({"kind": "simulated"}, "kinds: measured, simulated"),
        ({"case__preset": "demo"}, "presets: demo, full"),
        ({"limits": {"max_steps": 9}}, "lengths: at most 9 steps, the whole schedule"),
        ({"hyperparameters__global_batch_size": 512}, "global batches: 256, 512"),
        (
            {"hyperparameters__changes": [{"key": "batch_size", "base": 32, "value": 64, "origin": "command line"}]},
            "changed hyperparameters: /, bs=64",
        ),
        ({"case__name": "mobilenetv2"}, "cases: mobilenetv2, resnet50"),
        ({"dataset__fingerprint": "f"}, "contents of the dataset"),
        ({"metrics__p_core": UNKNOWN}, "run run has no p_core: unknown"),
        ({"metrics__p_core": 0.0}, "run run has p_core 0"),
        ({"metrics__p_core": {"missing": "withheld", "reason": "secret"}}, r"no p_core: withheld \(secret\)"),
        ({"status": {"state": "interrupted"}}, r"run run has no p_core: failed \(interrupted\)"),
    ],
)
@pytest.mark.parametrize("is_baseline", [True, False])
def test_what_would_make_a_verdict_meaningless_is_refused(changes, message, is_baseline):
    pair = (run(**changes), run("base")) if is_baseline else (run("base"), run(**changes))

    with pytest.raises(UsageError, match=message) as refused:
        judged(*pair)
    assert refused.value.hint


def test_other_measured_precision_is_refused_and_an_unknown_one_is_not():
    base = run("base", precision__measured_matmul="fp32")

    with pytest.raises(UsageError, match="measured precisions of matrix products: fp32, tf32"):
        judged(base, run(precision__measured_matmul="tf32"))
    assert judged(base, run(precision__measured_matmul=UNKNOWN))[0].verdict == "met"


def test_peaks_of_memory_that_were_read_in_two_ways_are_refused():
    with pytest.raises(UsageError, match=r"sources of mem_peak: metrics.memory.allocated_peak_bytes"):
        judged(run("base"), run(metrics__memory__device_peak_bytes=UNKNOWN), MOST)


def test_a_run_is_no_baseline_of_its_own():
    with pytest.raises(UsageError, match="the baseline and the run are the same record"):
        judged(run(), run())
    with pytest.raises(UsageError, match="are records of one run, run, and differ"):
        judged(run(), run(warnings=["edited"]))
    copy = run(warnings=["edited"], withheld=[{"field": "$.loader", "reason": "", "sha256": "0" * 64}])
    with pytest.raises(UsageError, match="run run is on both sides of the comparison"):
        judged(run(), copy)


def test_repeats_that_did_not_complete_are_not_left_out_silently():
    complete = repeats(3, "b")
    lacking = Side(records=complete.records, planned=4, source="b")

    with pytest.raises(UsageError, match="only 3 of 4 repeats in b completed"):
        judged(repeats(3, "a"), lacking)


def test_a_median_that_is_not_that_of_its_windows_is_refused():
    edited = {**throughput_of([900.0, 901, 902, 903, 904], iqr=2), "median": 1000.0}

    with pytest.raises(UsageError, match="is not that of its windows"):
        judged(run("base"), run(metrics__p_core=edited))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p_cor=0.97", r"no metric 'p_cor' \(did you mean 'p_core'\?\)"),
        ("=0.97", "no metric ''"),
        ("quality=0.97", "a ratio of two values of quality has no meaning"),
        *(
            (f"p_core{ending}", "is not a ratio to the baseline between 0.1 and 10")
            for ending in ("", "=", "=97", "=97%", "=0,97", "=nan", "=inf", "=-1", "=0", "=0.0", "=x")
        ),
    ],
)
def test_requirement_that_cannot_be_meant_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_requirements([text], [])
    with pytest.raises(UsageError, match=message):
        parse_requirements([], [text])


def test_requirement_names_a_metric_by_its_name_or_header():
    assert parse_requirements([" p_core = 0.97"], ["mem=1.05"]) == (LEAST, MOST)
    assert parse_requirements([], ["mem_peak=1.05"]) == (MOST,)


def test_a_bound_is_given_once():
    with pytest.raises(UsageError, match="--at-most mem_peak is given 2 times"):
        parse_requirements(["mem=0.9"], ["mem=1.05", "mem_peak=1.1"])


def test_a_copy_under_another_name_is_refused():
    with pytest.raises(UsageError, match="runs base and copy have the same windows of p_core to the last digit"):
        judged(run("base", **core(1000.0)), run("copy", **core(1000.0)))
    sides = repeats(3, "a"), repeats(2, "b")
    copies = Side(records=(*sides[1].records, run("copy", **measured(1000.0, ord("b") * 10))), planned=3)
    with pytest.raises(UsageError, match="runs b0 and copy have the same windows"):
        judged(sides[0], copies)


@pytest.mark.parametrize(
    ("rate", "requirement"), [(1e6, LEAST), (1.0, RequiredRatio(measure="p_core", bound="at_most", ratio=1.05))]
)
def test_a_ratio_of_something_else_than_the_baseline_does_not_pass(rate, requirement):
    with pytest.raises(UsageError, match="times the baseline's, which cannot be right"):
        judged(run("base"), run(**core(rate)), requirement)
    assert judged(run("base"), run(**core(1.0)))[0].verdict == "not_met"
