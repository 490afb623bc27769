"""Which settings that change speed or numerics differ between runs: the knob-parity table."""

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
    """A setting that is not the same everywhere.

    Attributes:
        group: What kind of setting it is; of a hyperparameter, its role.
        name: The hyperparameter's key, the knob's name, or the record's field.
        values: Its value in every run, in the order of the runs.
    """

    group: Group
    name: str
    values: tuple[str, ...]


def different_settings(records: Sequence[Record], case: Case) -> tuple[DifferentSetting, ...]:
    """Return every setting that differs between runs and may explain why their results do.

    Args:
        records: Runs of ``case``.
        case: Says which role each hyperparameter has.
    """
    rows = [_settings(record, case) for record in records]
    keys = dict.fromkeys(key for row in rows for key in row)
    found = []
    for group, name in sorted(keys, key=lambda key: _ORDER.index(key[0])):
        values = tuple(
            row.get((group, name), _absent(group, record)) for row, record in zip(rows, records, strict=True)
        )
        if len(set(values)) > 1:
            found.append(DifferentSetting(group=group, name=name, values=values))
    return tuple(found)


def _settings(record: Record, case: Case) -> Mapping[tuple[Group, str], str]:
    precision, environment = record.precision, record.environment
    found: dict[tuple[Group, str], Setting | Missing | None] = {
        ("run", "kind"): record.kind,
        ("run", "topology"): record.topology.label,
        ("run", "preset"): record.case.preset,
        ("run", "max_epochs"): record.limits.max_epochs,
        ("run", "max_steps"): record.limits.max_steps,
        ("run", "budget_s"): record.limits.budget_s,
        ("run", "global_batch_size"): record.hyperparameters.global_batch_size,
        ("precision", "requested"): precision.requested,
        ("precision", "effective"): precision.effective,
        ("precision", "measured_matmul"): precision.measured_matmul,
        ("precision", "measured_convolution"): precision.measured_convolution,
        ("precision", "autocast_dtype"): precision.autocast_dtype,
        ("precision", "grad_scaler"): precision.grad_scaler,
    }
    keys = case.base.keys()
    for key, value in record.hyperparameters.values.items():
        if key not in _WITHOUT_EFFECT:
            found[_ROLES[case.base.role(key)] if key in keys else "hyperparameter", key] = value
    for knob in record.knobs:
        found["knob", knob.name] = knob.value or "empty"
    if not isinstance(record.loader, Missing):
        for key, value in record.loader:
            found["loader", key] = value
    for field in ("torch", "sdk", "driver", "collectives", "compiler"):
        found["software", field] = getattr(environment, field)
    return {key: setting_text(value) for key, value in found.items()}


def _absent(group: Group, record: Record) -> str:
    """Return what stands where a run does not have a setting: a document does not state it, a run did not set it."""
    return NOT_STATED if record.kind == "imported" or group in ("locked", "scaled", "free") else NOT_SET
