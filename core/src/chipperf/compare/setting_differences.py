"""The knob-parity table: settings that change speed or numerics and differ between runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from chipperf.records.schema import Missing
from chipperf.report.comparability import setting_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record, Setting

Group = Literal["run", "precision", "locked", "scaled", "free", "hyperparameter", "knob", "loader", "software"]
"""What a setting belongs to, in the order of the table."""

_WITHOUT_EFFECT: Final = {"seed", "keep_checkpoints"}
NOT_SET: Final = "not set"
NOT_STATED: Final = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentSetting:
    """A hyperparameter, knob or field of the record that differs between runs, with its value in each of them."""

    group: Group
    name: str
    values: tuple[str, ...]


def different_settings(records: Sequence[Record], case: Case) -> tuple[DifferentSetting, ...]:
    """Return every setting that may explain different results: the runs that state it have different values."""
    rows = [{(group, name): _text(value) for group, name, value in _settings(record, case)} for record in records]
    keys = dict.fromkeys(key for row in rows for key in row)
    found = []
    for group, name in sorted(keys, key=lambda key: get_args(Group).index(key[0])):
        values = tuple(
            row.get((group, name), _absent(group, record)) for row, record in zip(rows, records, strict=True)
        )
        if len(set(values) - {NOT_STATED}) > 1:
            found.append(DifferentSetting(group=group, name=name, values=values))
    return tuple(found)


def _settings(record: Record, case: Case) -> Iterator[tuple[Group, str, Setting | Missing | None]]:
    yield "run", "kind", record.kind
    yield "run", "topology", record.topology.label
    yield "run", "global_batch_size", record.hyperparameters.global_batch_size
    yield "precision", "requested", record.precision.requested
    yield "precision", "effective", record.precision.effective
    if record.kind != "imported":
        yield "run", "preset", record.case.preset
        for field in ("max_epochs", "max_steps", "budget_s"):
            yield "run", field, getattr(record.limits, field)
        for field in ("measured_matmul", "measured_convolution", "autocast_dtype", "grad_scaler"):
            yield "precision", field, getattr(record.precision, field)
    for knob in record.knobs:
        yield "knob", knob.name, knob.value or "empty"
    if not isinstance(record.loader, Missing):
        for field, value in record.loader:
            yield "loader", field, value
    for field in ("torch", "sdk", "driver", "collectives", "compiler"):
        yield "software", field, getattr(record.environment, field)
    keys = case.base.keys()
    for key, setting in record.hyperparameters.values.items():
        if key not in _WITHOUT_EFFECT:
            yield case.base.role(key).value if key in keys else "hyperparameter", key, setting


def _text(value: Setting | Missing | None) -> str:
    return NOT_STATED if isinstance(value, Missing) and value.missing == "unknown" else setting_text(value)


def _absent(group: Group, record: Record) -> str:
    """Return the value to show for an absent setting: not stated in a document, or not set in a run."""
    return NOT_STATED if record.kind == "imported" or group in ("locked", "scaled", "free") else NOT_SET
