"""What a run ran on and with: the parts that make it one row of a report and not another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.cases.base import Role
from chipperf.records.schema import Missing
from chipperf.report.format import NOT_APPLICABLE, setting

if TYPE_CHECKING:
    from collections.abc import Hashable

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record, Text

_FIRST_KEYS = ("batch_size", "lr")
_SHORT_KEYS = {"batch_size": "bs"}


def row_key(record: Record, case: Case) -> Hashable:
    """Return what two runs have in common that are of the same row."""
    return (
        record.environment.row_label,
        record.topology.label,
        record.precision.requested,
        fix_hp(record, case),
    )


def fix_hp(record: Record, case: Case) -> str:
    """Return the differences to the case's base that have to be disclosed, ``/`` if there are none."""
    keys = case.base.keys()
    order = {key: place for place, key in enumerate(dict.fromkeys((*_FIRST_KEYS, *keys)))}
    shown = [
        change
        for change in record.hyperparameters.changes
        # A key the case does not have, from an older version or an imported document, is shown rather than hidden.
        if change.key not in keys or case.base.role(change.key) is not Role.FREE
    ]
    shown.sort(key=lambda change: order.get(change.key, len(order)))
    texts = [f"{_SHORT_KEYS.get(change.key, change.key)}={setting(change.value)}" for change in shown]
    return ",".join(texts) or NOT_APPLICABLE


def row_label(record: Record) -> Text:
    """Return the device's name in a row's label."""
    return _real_or_simulated(record, record.environment.row_label)


def card_short_name(record: Record) -> Text:
    """Return the device's short name in the general table."""
    return _real_or_simulated(record, record.environment.card_short_name)


def not_blank(text: Text) -> Text:
    """Return the text, or that it is unknown if there is nothing to see in it."""
    return text if isinstance(text, Missing) or text.strip() else Missing(missing="unknown")


def _real_or_simulated(record: Record, name: Text) -> Text:
    """Return a device's name such that a simulated device cannot be taken for a real one."""
    name = not_blank(name)
    if record.kind != "simulated":
        return name
    return "simulated" if isinstance(name, Missing) else f"simulated {name}"
