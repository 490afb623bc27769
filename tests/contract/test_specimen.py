"""Records of runs that never were are valid, and the empty one has nothing that may be missing."""

from __future__ import annotations

import pytest
from chipperf.cases.config import resolve
from chipperf.cases.registry import case_names, find_case
from chipperf.contract.sample_records import RANKS, device_names, empty_record, full_record
from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind
from chipperf.plugin.types import KnownDevice, Title, VendorInfo
from chipperf.records.schema import Environment, Metrics, Missing, Record

NEVER_MISSING = {
    Environment: {"stated", "cards", "distributions"},
    Metrics: {"spans", "curve", "rank_steps", "restart_windows"},
}


@pytest.mark.parametrize("case_name", case_names())
def test_full_record_is_valid(case_name: str) -> None:
    case = find_case(case_name)
    for rank in RANKS:
        record = full_record(bind(find_vendor("cpu")), case, rank, resolve(case))
        assert Record.model_validate_json(record.model_dump_json()) == record
        assert record.topology.label == rank.topology
        assert not isinstance(record.metrics.p_core, Missing)


def test_empty_record_lacks_everything_it_may() -> None:
    case = find_case("resnet50")
    record = empty_record(bind(find_vendor("cpu")), case, RANKS[0], resolve(case))
    assert Record.model_validate_json(record.model_dump_json()) == record
    for part in (record.environment, record.metrics):
        present = {name for name in type(part).model_fields if not isinstance(getattr(part, name), Missing)}
        assert present == NEVER_MISSING[type(part)]
    assert isinstance(record.loader, Missing)
    assert isinstance(record.case.target, Missing)
    assert isinstance(record.dataset.classes, Missing)
    assert record.status.state == "completed"


def test_hooks_are_asked_about_no_device_and_every_known_one() -> None:
    title = Title(zh="t", en="t")
    known = (KnownDevice(name="A1", short_name="a"), KnownDevice(name="B2", short_name="b"))
    info = VendorInfo(name="v", title=title, report_title=title, device_type="v", known_devices=known)
    unknown, foreign, *names = device_names(info)
    assert unknown == ""
    assert foreign
    assert names == ["A1", "B2"]
