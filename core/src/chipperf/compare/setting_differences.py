"""The knob-parity table: settings that change speed or numerics and differ between runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from chipperf.cases.base import Role
from chipperf.records.schema import Missing
from chipperf.report.comparability import setting_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chipperf.cases.base import Case
    from chipperf.records.schema import Record, Setting

Group = Literal["run", "locked", "scaled", "free", "hyperparameter", "precision", "loader", "knob", "software"]

_ROLES: Final[Mapping[Role, Group]] = {Role.LOCKED: "locked", Role.SCALED: "scaled", Role.FREE: "free"}
_ORDER: Final[tuple[Group, ...]] = (
    *("run", "precision", "locked", "scaled", "free", "hyperparameter", "knob", "loader", "software"),
)
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
    """Return every setting that differs between runs and may explain different results.

    A setting is left out if all runs that state it have the same value.
    """
    rows = [_settings(record, case) for record in records]
    keys = dict.fromkeys(key for row in rows for key in row)
    found = []
    for group, name in sorted(keys, key=lambda key: _ORDER.index(key[0])):
        values = tuple(
            row.get((group, name), _absent(group, record)) for row, record in zip(rows, records, strict=True)
        )
        if len(set(values) - {NOT_STATED}) > 1:
            found.append(DifferentSetting(group=group, name=name, values=values))
    return tuple(found)


def _settings(record: Record, case: Case) -> Mapping[tuple[Group, str], str]:
    found = {**_run_settings(record), **_stack_settings(record)}
    keys = case.base.keys()
    for key, value in record.hyperparameters.values.items():
        if key not in _WITHOUT_EFFECT:
            found[_ROLES[case.base.role(key)] if key in keys else "hyperparameter", key] = value
    return {key: _text(value) for key, value in found.items()}


def _run_settings(record: Record) -> dict[tuple[Group, str], Setting | Missing | None]:
    precision, limits = record.precision, record.limits
    found: dict[tuple[Group, str], Setting | Missing | None] = {
        ("run", "kind"): record.kind,
        ("run", "topology"): record.topology.label,
        ("run", "global_batch_size"): record.hyperparameters.global_batch_size,
        ("precision", "requested"): precision.requested,
        ("precision", "effective"): precision.effective,
    }
    if record.kind == "imported":
        return found
    return found | {
        ("run", "preset"): record.case.preset,
        ("run", "max_epochs"): limits.max_epochs,
        ("run", "max_steps"): limits.max_steps,
        ("run", "budget_s"): limits.budget_s,
        ("precision", "measured_matmul"): precision.measured_matmul,
        ("precision", "measured_convolution"): precision.measured_convolution,
        ("precision", "autocast_dtype"): precision.autocast_dtype,
        ("precision", "grad_scaler"): precision.grad_scaler,
    }


def _stack_settings(record: Record) -> dict[tuple[Group, str], Setting | Missing | None]:
    found: dict[tuple[Group, str], Setting | Missing | None] = {}
    for knob in record.knobs:
        found["knob", knob.name] = knob.value or "empty"
    if not isinstance(record.loader, Missing):
        found |= {("loader", key): value for key, value in record.loader}
    for field in ("torch", "sdk", "driver", "collectives", "compiler"):
        found["software", field] = getattr(record.environment, field)
    return found


def _text(value: Setting | Missing | None) -> str:
    return NOT_STATED if isinstance(value, Missing) and value.missing == "unknown" else setting_text(value)


def _absent(group: Group, record: Record) -> str:
    """Return the value to show for an absent setting: not stated in a document, or not set in a run."""
    return NOT_STATED if record.kind == "imported" or group in ("locked", "scaled", "free") else NOT_SET
