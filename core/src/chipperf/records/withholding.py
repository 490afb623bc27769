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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from chipperf.errors import UsageError, first_place
from chipperf.records.files import read_model, write_atomically
from chipperf.records.schema import SCHEMA_VERSION, Commitment, Record, StrictModel, WithheldRatio
from chipperf.records.store import RECORD_NAME, record_text
from chipperf.records.upgrade import upgrade, upgrade_field

_SALT_BYTES: Final = 32
_STEP: Final = re.compile(r"(?:^|\.)([A-Za-z_]\w*)|\[(\d{1,9})\]")

_BATCH: Final = ".hyperparameters.global_batch_size"
_CARDS: Final = ".environment.cards"
_CARD_NAMES: Final = ".environment.card_title, .environment.card_short_name, .environment.row_label"
_TOLD_BY: Final = {
    "p_train": "data_stall + p_core",
    "p_core": "data_stall + p_train, step_breakdown",
    "data_stall": "p_core + p_train, step_breakdown + p_train",
    "p_whole": f"train_seconds + train_samples, train_seconds + steps + {_BATCH}, spans, curve, "
    "power.energy_j + power.mean_w",
    "train_seconds": "p_whole + train_samples, power.energy_j + power.mean_w, spans, curve",
    "train_samples": f"p_whole + train_seconds, epochs + .dataset.train_samples, steps + {_BATCH}, "
    "p_train.windows, curve",
    "e2e_time_s": "spans, .nodes",
    "memory": "power.used_peak_bytes",
    "power": ".nodes, memory.device_peak_bytes",
    "power.energy_j": "power.mean_w + train_seconds, .nodes",
    "power.mean_w": "power.energy_j + train_seconds, .nodes",
    "quality": "best_quality, curve, time_to_target",
    "best_quality": "quality, curve, time_to_target",
    "time_to_target": "curve",
    "curve": "quality, best_quality, time_to_target",
    "steps": f"curve, p_train.windows, p_core.windows, restart_windows, .limits.max_steps, train_samples + {_BATCH}, "
    f"epochs + .dataset.train_samples + {_BATCH}, p_whole + train_seconds + {_BATCH}",
    _BATCH: ".hyperparameters.values.batch_size, train_samples + steps, p_whole + train_seconds + steps, "
    "p_train.windows, p_core.windows, restart_windows",
    ".seed": ".hyperparameters.values.seed",
    _CARDS: f"{_CARD_NAMES}, rank_steps, .machine_limits",
    **dict.fromkeys(_CARD_NAMES.split(", "), f"{_CARDS}, {_CARD_NAMES}, rank_steps"),
}
"""For each field, the groups of fields that together tell it. The first of a group is withheld with the field.

Names without a dot in front are metrics. What gives a field that is withheld with another back is a group, too.
"""

_ESTIMATED_FROM: Final = {
    "$.metrics.p_train": (
        "$.metrics.p_whole",
        "$.metrics.rank_steps",
        "$.metrics.spans",
        "$.metrics.projected_train_seconds",
    ),
    "$.metrics.p_core": ("$.metrics.rank_steps",),
}


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

    ``also`` has the fields that were withheld because they reveal a withheld field, each with that field, and
    ``still_told`` the fields of the record that still do.
    """

    record: Record
    secrets: Secrets
    also: tuple[tuple[str, str], ...]
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


def withhold(
    record: Record, fields: Sequence[str], reason: str, *, keep: Sequence[str] = (), ratio_to: Record | None = None
) -> Withheld:
    """Remove values from a record, with what they can be computed from and what states them, and commit to them.

    A field is ``metrics.p_core`` or ``$.metrics.p_core``; a list is emptied. Fields to ``keep`` are not removed unless
    they are named. With a comparable run, ``ratio_to``, the ratio of each named value to this run's value is published.

    Raises:
        UsageError: A field does not exist, has no value, or is one that every record needs, or such a field reveals
            it; or there is no reason or no ratio.
    """
    if not reason.strip():
        raise UsageError("there is no reason", hint="say why with --reason; reports show it")
    content = json.loads(record_text(record))
    named = list(dict.fromkeys(map(json_path, fields)))
    values = {path: _replace(content, path, reason) for path in named}
    kept, also, told = set(map(json_path, keep)), [], []
    for path in (*named, *(each.field for each in record.withheld)):
        for by in _tellers(content, path, values.get(path)):
            if by in kept or by in _ESTIMATED_FROM.get(path, ()):
                told.append((by, path))
                continue
            try:
                values[by] = _replace(content, by, reason)
            except UsageError as error:
                raise UsageError(
                    f"{path} cannot be withheld: {by} reveals it, and every record needs that field",
                    hint=f"publish both, or accept that it is revealed: --keep {by.removeprefix('$.')}",
                ) from error
            also.append((by, path))
    made = [Secret(field=path, value=value, salt=secrets.token_hex(_SALT_BYTES)) for path, value in values.items()]
    for each in made:
        ratio = _ratio(each.field, each.value, ratio_to) if ratio_to and each.field in named else None
        sha256 = commitment(record.run_id, each.field, each.value, each.salt)
        committed = Commitment(field=each.field, reason=reason, sha256=sha256, ratio=ratio)
        content["withheld"].append(committed.model_dump())
    return Withheld(
        record=Record.model_validate(content),
        secrets=Secrets(schema_version=SCHEMA_VERSION, run_id=record.run_id, values=made),
        also=tuple(also),
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
    # A list that was withheld before the value that contains it is part of that value no more.
    for secret in reversed(revealed.values):
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
        raise UsageError(f"{file} exists", hint="choose another file; lost salts cannot be replaced") from error
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", hint="choose another file") from error


def read_secrets(file: Path) -> Secrets:
    """Read values and salts; a :class:`RecordError` says what is wrong with the file, and where."""
    return read_model(Secrets, file, hint="name the private file that 'perf withhold' wrote")


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
    if not _is_told(value):
        raise UsageError(f"{path} has no value", hint="there is nothing to withhold")
    parent[last] = [] if isinstance(value, list) else {"missing": "withheld", "reason": reason}
    try:
        Record.model_validate(content)
        fits = path != "$.hyperparameters.values"  # Its settings may have any name, also "missing".
    except ValidationError:
        fits = False
    if not fits:
        raise UsageError(
            f"{path} cannot be withheld", hint="choose measured values, facts of the environment, or lists"
        )
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


def _tellers(content: Any, path: str, value: JsonValue) -> Iterator[str]:
    """Yield the fields that tell a withheld field: by the tables, and because they state its value.

    The loader is a field, as its settings cannot be withheld one by one.
    """
    for group in filter(None, _TOLD_BY.get(path.removeprefix("$.metrics.").removeprefix("$"), "").split(", ")):
        names = [f"$.metrics.{name}".replace("$.metrics..", "$.") for name in group.split(" + ")]
        if all(_has(content, name) for name in names):
            yield names[0]
    yield from (by for by in _ESTIMATED_FROM.get(path, ()) if _has(content, by))
    stated = _statement(path, value)
    if stated is None:
        return
    for key, part in list(content.items()):
        is_section = isinstance(part, dict) and "missing" not in part and key != "loader"
        fields = part.items() if is_section else ((None, part),)
        for name, field in list(fields):
            if key != "withheld" and stated.search(json.dumps(field, ensure_ascii=False)):
                yield f"$.{key}.{name}" if name else f"$.{key}"


def _statement(path: str, value: Any) -> re.Pattern[str] | None:
    """Return a pattern of what states a value: its text, the names of cards, or a number of four digits or more."""
    number = _number(value)
    if number is not None:
        texts = [text for text in (str(number).removesuffix(".0"), f"{number:.4g}") if sum(map(str.isdigit, text)) > 3]
    else:
        names = [card["name"] for card in value] if path == f"${_CARDS}" else [value]
        # Shorter texts, such as gloo, occur by chance.
        texts = [text for text in names if isinstance(text, str) and len(text) > 4]
    alternatives = "|".join(map(re.escape, texts))
    return re.compile(rf"(?<![\w.])(?:{alternatives})(?:\.0)?(?!\w|\.\d)", re.IGNORECASE) if texts else None


def _has(content: Any, path: str) -> bool:
    with suppress(UsageError):
        parent, last = _parent(content, path)
        return _is_told(parent[last])
    return False


def _is_told(value: Any) -> bool:
    if isinstance(value, dict) and "missing" in value:
        # If the target was not reached, the reason contains the best result.
        return value["missing"] == "failed" and bool(value["reason"])
    return value is not None and value != []


def _steps(path: str) -> list[str | int]:
    return [match[1] or int(match[2]) for match in _STEP.finditer(path.removeprefix("$."))]
