"""Withholding values: removing them from a record, committing to them, and checking them when they are revealed.

A commitment is the SHA-256 of the canonical JSON (keys sorted, no spaces, UTF-8) of an object with ``run_id``,
``field``, ``value`` and ``salt``, where the salt is 256 random bits in hexadecimal. Without the salt, guesses of the
value cannot be checked. With the salt, only the committed value matches.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from chipperf.errors import RecordError, UsageError, first_fault, first_place
from chipperf.records.files import parse_model, read_bounded, write_atomically
from chipperf.records.schema import SCHEMA_VERSION, Record, StrictModel, WithheldRatio
from chipperf.records.store import RECORD_NAME, record_text
from chipperf.records.upgrade import upgrade, upgrade_field

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SALT_BYTES: Final = 32
_STEP: Final = re.compile(r"(?:^|\.)([A-Za-z_]\w*)|\[(\d{1,9})\]")

_TOLD_BY: Final = {
    "$.metrics.p_train": ("$.metrics.data_stall", "$.metrics.p_whole", "$.metrics.rank_steps", "$.metrics.spans"),
    "$.metrics.p_core": ("$.metrics.data_stall", "$.metrics.step_breakdown"),
    "$.metrics.p_whole": ("$.metrics.train_seconds", "$.metrics.spans", "$.metrics.curve"),
    "$.metrics.train_seconds": ("$.metrics.p_whole", "$.metrics.spans", "$.metrics.curve"),
    "$.metrics.e2e_time_s": ("$.metrics.spans",),
    "$.metrics.quality": ("$.metrics.best_quality", "$.metrics.curve", "$.metrics.time_to_target"),
    "$.metrics.best_quality": ("$.metrics.quality", "$.metrics.curve", "$.metrics.time_to_target"),
}
"""Fields from which other fields can be computed or estimated."""


class Secret(StrictModel):
    """The value of a withheld field and the salt of its commitment."""

    field: str
    value: JsonValue
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Secrets(StrictModel):
    """Content of the private file: the values removed from a run's record.

    ``schema_version`` is the version of the record's schema, which fields and values follow. Files of version 1 do not
    state it.
    """

    secrets_version: Literal[1] = 1
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = 1
    run_id: str
    values: list[Secret]


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """The record to publish and the private values.

    ``still_told`` has the fields of the record that still reveal a withheld field, each with that field.
    """

    record: Record
    secrets: Secrets
    still_told: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    """A revealed value and its fault; ``None`` if it matches the commitment."""

    field: str
    value: JsonValue
    problem: str | None


def commitment(run_id: str, field: str, value: JsonValue, salt: str) -> str:
    """Return the commitment to a value, in hexadecimal; see the module for its definition."""
    content = {"run_id": run_id, "field": field, "value": value, "salt": salt}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def withhold(record: Record, fields: Sequence[str], reason: str, *, ratio_to: Record | None = None) -> Withheld:
    """Remove values from a record and commit to them.

    A field is ``metrics.p_core`` or ``$.metrics.p_core``; a list is emptied. With a comparable run, ``ratio_to``, the
    ratio of each value to this run's value is published.

    Raises:
        UsageError: A field does not exist, has no value, or is one that every record needs; or there is no reason or no
            ratio.
    """
    if not reason.strip():
        raise UsageError("there is no reason", hint="say why with --reason; reports show it")
    content = json.loads(record_text(record))
    values = []
    for path in dict.fromkeys(map(json_path, fields)):
        value = _replace(content, path, reason)
        values.append(Secret(field=path, value=value, salt=secrets.token_hex(_SALT_BYTES)))
    content["withheld"] += [
        {
            "field": secret.field,
            "reason": reason,
            "sha256": commitment(record.run_id, secret.field, secret.value, secret.salt),
            "ratio": ratio_to and _ratio(secret.field, secret.value, ratio_to).model_dump(),
        }
        for secret in values
    ]
    try:
        public = Record.model_validate(content)
    except ValidationError as error:
        raise UsageError(
            f"{first_place(error)} cannot be withheld",
            hint="choose measured values, facts of the environment, or lists",
        ) from error
    gone = {secret.field for secret in values} | {each.field for each in record.withheld}
    told = tuple((by, path) for path in gone for by in _TOLD_BY.get(path, ()) if by not in gone and _has(content, by))
    return Withheld(
        record=public,
        secrets=Secrets(schema_version=SCHEMA_VERSION, run_id=record.run_id, values=values),
        still_told=tuple(sorted(told)),
    )


def reveal(record: Record, revealed: Secrets, *, ratio_to: Record | None = None) -> list[Revealed]:
    """Check values against the commitments of a published record.

    Ratios are checked with ``ratio_to``, the run of the published ratios with its values.

    Raises:
        UsageError: There are no values, they belong to another run, or ``ratio_to`` is not the run of the published
            ratios or lacks a value.
    """
    if revealed.run_id != record.run_id:
        raise UsageError(
            f"the values are of run {revealed.run_id}, the record of {record.run_id}",
            hint="name the run they are of",
        )
    if not revealed.values:
        raise UsageError(f"there are no values of run {record.run_id} to check", hint="ask for the private file again")
    return [
        Revealed(secret.field, secret.value, _problem(record, secret, revealed.schema_version, ratio_to))
        for secret in revealed.values
    ]


def fill_in(record: Record, revealed: Secrets) -> Record:
    """Return a published record with the revealed values filled in.

    Raises:
        UsageError: The values belong to another run, or a value does not match its commitment.
    """
    for each in reveal(record, revealed):
        if each.problem:
            raise UsageError(f"{each.field} of run {record.run_id}: {each.problem}", hint="ask for the values again")
    content = json.loads(record_text(record))
    for secret in revealed.values:
        field, value = _upgraded(secret, revealed.schema_version)
        parent, last = _parent(content, field)
        parent[last] = value
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        raise UsageError(
            f"{first_place(error)} of run {record.run_id} is no value of a record", hint="ask for the values again"
        ) from error


def json_path(field: str) -> str:
    """Return a field as JSONPath.

    Raises:
        UsageError: It is not a field.
    """
    path = field.removeprefix("$").removeprefix(".")
    if not path or "".join(match[0] for match in _STEP.finditer(path)) != path:
        raise UsageError(f"{field!r} is no field", hint="for example --field metrics.p_core")
    return f"$.{path}"


def write_public(directory: Path, record: Record) -> None:
    """Write a record into a new directory.

    Raises:
        UsageError: The directory exists or cannot be made.
    """
    try:
        directory.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{directory} exists", hint="choose another --out; nothing is overwritten") from error
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}", hint="choose another --out") from error
    write_atomically(directory / RECORD_NAME, record_text(record))


def write_secrets(file: Path, content: Secrets) -> None:
    """Write values and salts into a new file that only its owner may read.

    Raises:
        UsageError: The file exists or cannot be written.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(content.model_dump_json(indent=2) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
    except FileExistsError as error:
        raise UsageError(f"{file} exists", hint="choose another file; salts that are lost prove nothing") from error
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", hint="choose another file") from error


def read_secrets(file: Path) -> Secrets:
    """Read values and salts.

    Raises:
        RecordError: The file cannot be read or has another form; the message says where.
    """
    try:
        return parse_model(Secrets, read_bounded(file))
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        raise RecordError(
            f"{file}: {first_fault(error)}", hint="name the private file that 'perf withhold' wrote"
        ) from error


def _upgraded(secret: Secret, version: int) -> tuple[str, JsonValue]:
    """Return field and value in the current schema. ``version`` is the version of their record's schema."""
    content: Any = secret.value
    for step in reversed(_steps(secret.field)):
        content = [content] if isinstance(step, int) else {step: content}
    content = upgrade({**content, "schema_version": version})
    field = upgrade_field(secret.field, version)
    for step in _steps(field):
        content = content[0 if isinstance(step, int) else step]
    return field, content


def _problem(record: Record, secret: Secret, version: int, ratio_to: Record | None) -> str | None:
    committed = next((each for each in record.withheld if each.field == secret.field), None)
    if committed is None:
        return "the record does not withhold it"
    found = commitment(record.run_id, secret.field, secret.value, secret.salt)
    if not hmac.compare_digest(found, committed.sha256):
        return "not the value that the record committed to"
    if ratio_to is None or committed.ratio is None:
        return None
    if ratio_to.run_id != committed.ratio.run_id:
        raise UsageError(
            f"the ratio of {secret.field} is to run {committed.ratio.run_id}, not {ratio_to.run_id}",
            hint="name that run with --ratio-to",
        )
    ratio = _ratio(upgrade_field(secret.field, version), secret.value, ratio_to).value
    return None if ratio == committed.ratio.value else f"its ratio is {ratio}, and not {committed.ratio.value}"


def _ratio(field: str, withheld: JsonValue, base: Record) -> WithheldRatio:
    parent, last = _parent(json.loads(record_text(base)), field)
    value, base_value = _number(withheld), _number(parent[last])
    if value is None or not base_value or not math.isfinite(ratio := value / base_value):
        raise UsageError(
            f"{field} has no ratio to that of run {base.run_id}",
            hint="both must be numbers, and that run's not 0",
        )
    return WithheldRatio(run_id=base.run_id, value=float(f"{ratio:.4g}"))


def _number(value: JsonValue) -> float | None:
    """Return a value's number; for a throughput, the median."""
    if isinstance(value, dict):
        value = value.get("median")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _replace(content: Any, path: str, reason: str) -> JsonValue:
    """Replace a value by a missing value or an empty list, and return the old value."""
    parent, last = _parent(content, path)
    value: JsonValue = parent[last]
    if value is None or value == [] or (isinstance(value, dict) and "missing" in value):
        raise UsageError(f"{path} has no value", hint="there is nothing to withhold")
    parent[last] = [] if isinstance(value, list) else {"missing": "withheld", "reason": reason}
    return value


def _parent(content: Any, path: str) -> tuple[Any, Any]:
    """Return the object or list that contains a field, and the field's key or index in it."""
    parent, last = None, None
    try:
        for last in _steps(path):
            parent, content = content, content[last]
    except (KeyError, IndexError, TypeError) as error:
        raise UsageError(f"the record has no {path}", hint="docs/record.schema.json names the fields") from error
    return parent, last


def _has(content: Any, path: str) -> bool:
    for step in _steps(path):
        content = content.get(step) if isinstance(content, dict) else None
    if isinstance(content, dict) and "missing" in content:
        # If the target was not reached, the reason contains the best result.
        return content["missing"] == "failed" and bool(content["reason"])
    return content is not None and content != []


def _steps(path: str) -> list[str | int]:
    return [match[1] or int(match[2]) for match in _STEP.finditer(path.removeprefix("$."))]
