"""From evaluations and windows to curves on one axis."""

from __future__ import annotations

import pytest
from chipperf.errors import UsageError
from chipperf.report.curves import CurveRuns, build_curves, common_places, read_points
from curve_records import curve, length, losses
from factory import UNKNOWN, make_record


def group(*records, name="A1", baseline=False, quantity="quality"):
    return CurveRuns(name=name, baseline=baseline, runs=tuple(read_points(record, quantity) for record in records))


def only_curve(*records, **options):
    (found,) = build_curves([group(*records)], "quality", **options).curves
    return found


def places(found):
    return [position.place for position in found.positions]


def test_evaluations_are_points_over_epochs():
    curves = build_curves([group(make_record(**curve([0.1, 0.5])))], "quality")

    assert (curves.axis, curves.not_on) == ("epoch", None)
    assert [(position.place, position.median) for position in curves.curves[0].positions] == [(1, 0.1), (2, 0.5)]


def test_qualities_of_runs_with_other_steps_per_epoch_share_their_usual_axis():
    records = [make_record(**curve([0.1, 0.5])), make_record(**curve([0.1, 0.5], steps_per_epoch=5))]
    curves = build_curves([group(record) for record in records], "quality")

    assert (curves.axis, curves.not_on, common_places(curves)) == ("epoch", None, [1, 2])


def test_losses_of_windows_are_points_over_steps():
    record = make_record(**losses([3.0, 2.0, None, 1.0]))
    curves = build_curves([group(record, quantity="loss")], "loss")

    assert curves.axis == "step"
    assert [(position.place, position.median) for position in curves.curves[0].positions] == [(5, 3), (10, 2), (20, 1)]


def test_losses_of_a_restart_lie_between_the_others():
    values = losses([3.0, 2.0, 1.0])
    windows = values["metrics__p_train"]["windows"]
    record = make_record(**values | {"metrics__restart_windows": [windows.pop(1)]})
    curves = build_curves([group(record, quantity="loss")], "loss")

    assert [(position.place, position.median) for position in curves.curves[0].positions] == [(5, 3), (10, 2), (15, 1)]


def test_an_evaluation_within_an_epoch_is_placed_there():
    points = curve([0.1, 0.2])
    points["metrics__curve"][1]["step"] = 15
    record = make_record(**points | length(1.5, 10))

    assert places(only_curve(record)) == [1, 1.5]


@pytest.mark.parametrize("unknown", [{"metrics__steps": UNKNOWN}, {"metrics__epochs": UNKNOWN}, {"metrics__epochs": 0}])
def test_epochs_are_those_of_the_points_where_a_run_does_not_tell_its_steps(unknown):
    assert places(only_curve(make_record(**curve([0.1, 0.2]) | unknown))) == [1, 2]


def test_epochs_are_those_of_the_points_where_they_contradict_the_steps():
    assert places(only_curve(make_record(**curve([0.1, 0.2]) | length(2, 500)))) == [1, 2]


def test_points_are_put_in_order_and_count_once():
    points = curve([0.1, 0.2, 0.3])
    points["metrics__curve"] = [*reversed(points["metrics__curve"]), points["metrics__curve"][0]]

    assert [value for _, value in only_curve(make_record(**points)).runs[0].line("epoch")] == [0.1, 0.2, 0.3]


def test_several_evaluations_in_an_epoch_go_over_steps():
    points = curve([0.1, 0.2]) | {"metrics__steps": UNKNOWN}
    points["metrics__curve"][1]["epoch"] = 1
    curves = build_curves([group(make_record(**points))], "quality")

    assert curves.axis == "step"
    assert "several points in one epoch" in curves.not_on


def test_losses_of_runs_with_other_steps_per_epoch_go_over_epochs():
    records = [
        make_record(run_id="small", **losses([2.0, 1.0])),
        make_record(run_id="large", **losses([2.0, 1.0], steps_per_epoch=5)),
    ]
    curves = build_curves([group(record, quantity="loss") for record in records], "loss")

    assert curves.axis == "epoch"
    assert curves.not_on == "an epoch has 10 steps in run small, 5 steps in run large"
    assert common_places(curves) == [1]


@pytest.mark.parametrize(
    ("axis", "quantity", "message"),
    [
        ("step", "quality", "no step axis: an epoch has 10 steps in run a, 20 steps in run b"),
        ("time", "loss", "no time axis: the time of a training loss is not recorded"),
    ],
)
def test_an_axis_that_runs_cannot_share_is_refused(axis, quantity, message):
    make = curve if quantity == "quality" else losses
    records = [
        make_record(run_id="a", **make([0.2, 0.1])),
        make_record(run_id="b", **make([0.2, 0.1], steps_per_epoch=20)),
    ]
    with pytest.raises(UsageError, match=message):
        build_curves([group(record, quantity=quantity) for record in records], quantity, axis=axis)


def test_runs_that_fit_on_no_axis_are_refused_with_both_reasons():
    unknown = {"metrics__steps": UNKNOWN}
    records = [make_record(run_id=name, **losses([2.0, 1.0]) | unknown) for name in "ab"]
    with pytest.raises(UsageError, match="no step axis: run a does not state.*; no epoch axis: run a does not state"):
        build_curves([group(record, quantity="loss") for record in records], "loss")


def test_time_is_an_axis_of_qualities():
    assert places(only_curve(make_record(**curve([0.1, 0.2])), axis="time")) == [60, 120]


def test_repeats_are_median_lowest_and_highest_where_all_have_a_point():
    values = ([0.1, 0.3, 0.9], [0.2, 0.5], [0.4, 0.4, 0.8])
    found = only_curve(*(make_record(seed=seed, **curve(run)) for seed, run in enumerate(values)))

    assert [(p.place, p.low, p.median, p.high) for p in found.positions] == [(1, 0.1, 0.2, 0.4), (2, 0.3, 0.4, 0.5)]
    assert (found.seeds, found.points, found.last_place, found.best) == ((0, 1, 2), 3, 3, 0.9)


@pytest.mark.parametrize(("values", "reached"), [([0.7, 0.8], 1), ([0.76, 0.7], 1), ([0.1, 0.7549], 0)])
def test_a_run_reached_its_target_if_any_evaluation_met_it(values, reached):
    assert only_curve(make_record(**curve(values))).reached == reached


def test_without_a_target_none_is_reached():
    record = make_record(case__target={"missing": "not_applicable"}, **curve([0.1, 1.0]))
    curves = build_curves([group(record)], "quality")

    assert curves.targets == ()
    assert curves.curves[0].reached == 0


def test_curves_meet_their_baseline_at_the_last_place_that_both_have():
    groups = [group(make_record(**curve([0.1, 0.2, 0.3]))), group(make_record(**curve([0.15, 0.18])), baseline=True)]
    (meeting,) = build_curves(groups, "quality").meetings

    assert (meeting.place, meeting.value, meeting.baseline_value) == (2, 0.2, 0.18)


def test_curves_without_a_common_place_do_not_meet():
    late = curve([0.1, 0.2, 0.3, 0.4])
    late["metrics__curve"] = late["metrics__curve"][2:]
    groups = [group(make_record(**curve([0.1, 0.2]))), group(make_record(**late), baseline=True)]
    curves = build_curves(groups, "quality")

    assert curves.meetings == ()
    assert common_places(curves) == []
