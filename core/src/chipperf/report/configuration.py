"""What a run ran on and with: the parts that make it one row of a report and not another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.cases.base import Role
from chipperf.records.schema import Missing
from chipperf.report.format import NOT_APPLICABLE, setting

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record, Text

SHORT_KEYS = {"batch_size": "bs"}
"""Keys that ``fix_hp`` calls otherwise."""

_FIRST_KEYS = ("batch_size", "lr")


def row_key(record: Record, case: Case) -> Hashable:
    """Return what two runs have in common that are of the same row."""
    return (
        record.environment.row_label,
        record.topology.label,
        record.precision.requested,
        fix_hp(record, case),
    )


def fix_hp(record: Record, case: Case) -> str | Missing:
    """Return the differences to the case's base that have to be disclosed, ``/`` if there are none.

    An imported document may not say; what it says is shown, all of it and to the last digit.
    """
    changes = record.hyperparameters.changes
    if isinstance(changes, Missing):
        return changes
    keys = case.base.keys()
    exact = record.kind == "imported"
    shown = [
        change
        for change in changes
        # A key the case does not have, from an older version or an imported document, is shown rather than hidden.
        if exact or change.key not in keys or case.base.role(change.key) is not Role.FREE
    ]
    order = hyperparameter_order(case)
    shown.sort(key=lambda change: order.get(change.key, len(order)))
    texts = [f"{SHORT_KEYS.get(change.key, change.key)}={setting(change.value, exact=exact)}" for change in shown]
    return ",".join(texts) or NOT_APPLICABLE


def hyperparameter_order(case: Case) -> Mapping[str, int]:
    """Return the place of each of the case's hyperparameters in ``fix_hp``; other keys follow them."""
    return {key: place for place, key in enumerate(dict.fromkeys((*_FIRST_KEYS, *case.base.keys())))}


def row_label(record: Record) -> Text:
    """Return the device's name in a row's label."""
    return _real_or_simulated(record, record.environment.row_label)


def precision_name(record: Record) -> str:
    """Return the requested precision, and the effective one if it is another."""
    requested, effective = record.precision.requested, record.precision.effective
    return requested if isinstance(effective, Missing) or effective == requested else f"{requested} ({effective})"


def configuration_name(record: Record) -> str:
    """Return device, topology and precision on one line; for a device without a name, the vendor's."""
    label = row_label(record)
    device = record.vendor.name if isinstance(label, Missing) else label
    return f"{device} {record.topology.label} {precision_name(record)}"


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
