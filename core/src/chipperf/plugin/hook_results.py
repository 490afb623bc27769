"""Checks of the value that a vendor's hook returned against the type in the specification."""

from __future__ import annotations

import functools
import math
import types
from dataclasses import is_dataclass
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

_RANGES: Final = (
    # A capacity of 0 would stand for an unknown capacity, which must be None.
    ("total_bytes", 1.0, math.inf),
    ("memory_bytes", 1.0, math.inf),
    ("_bytes", 0.0, math.inf),
    ("_per_s", 1.0, math.inf),
    ("_w", 0.0, math.inf),
    ("_c", -100.0, 200.0),
    ("_percent", 0.0, 100.0),
    ("_mhz", 0.0, math.inf),
    ("_mb", 1.0, math.inf),
    # Shorter than a first collective takes, the number is in minutes; longer than a week, it is in milliseconds.
    ("timeout_s", 60.0, 7 * 86400.0),
    ("index", 0.0, math.inf),
    ("workers_per_rank", 0.0, math.inf),
)
"""Suffix of a field's name, lowest value and highest value. The first matching suffix counts."""


def describe_mismatch(value: object, expected: Any) -> str | None:
    """Return what is wrong with the result of a hook, such as ``a ProbeResult whose devices[0].name is blank``.

    ``None`` means that it has the ``expected`` type and plausible numbers. The type is one as in an annotation: a
    dataclass, ``tuple[X, ...]``, ``frozenset[X]``, a union, a ``Literal``, or a plain class. A subclass does not match.
    """
    fault = _fault_at("", value, expected)
    if fault is None or type(value) is not (get_origin(expected) or expected):
        return fault
    return f"a {type(value).__name__} whose {fault}"


def _fault_at(name: str, value: Any, expected: Any) -> str | None:
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _fault_in_union(name, value, arguments)
    if origin is Literal:
        return None if value in arguments else _fault(name, value, " or ".join(map(repr, arguments)))
    parts: list[tuple[str, Any, Any]]
    if origin in (tuple, frozenset):
        if not isinstance(value, origin):
            return _fault(name, value, f"{origin.__name__} of {_title(arguments[0])}")
        parts = [(f"{name}[{position}]", item, arguments[0]) for position, item in enumerate(value)]
    elif is_dataclass(expected):
        if type(value) is not expected:
            return _fault(name, value, _title(expected))
        hints = _hints_of(type(value))
        parts = [(f"{name}.{key}".lstrip("."), getattr(value, key), hint) for key, hint in hints.items()]
    else:
        return _fault_in_scalar(name, value, expected)
    return next(filter(None, (_fault_at(*part) for part in parts)), None)


def _fault_in_union(name: str, value: object, members: tuple[Any, ...]) -> str | None:
    if value is None and type(None) in members:
        return None
    if type(value) in members:
        return _fault_at(name, value, type(value))
    concrete = [member for member in members if member is not type(None)]
    faults = [_fault_at(name, value, member) for member in concrete]
    if None in faults:
        return None
    return faults[0] if len(faults) == 1 else _fault(name, value, " or ".join(_title(member) for member in concrete))


# Evaluating annotations is slow, and telemetry is checked once a second per device during a measurement.
@functools.cache
def _hints_of(expected: type) -> dict[str, Any]:
    return get_type_hints(expected)


def _fault_in_scalar(name: str, value: object, expected: Any) -> str | None:
    accepted = (int, float) if expected is float else expected
    # In Python bool is a subclass of int, but True is not a valid number here.
    if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
        return _fault(name, value, _title(expected))
    field_name = name.rpartition(".")[2]
    if isinstance(value, str) and not value.strip() and field_name != "value":
        return f"{name} is blank"
    if isinstance(value, (int, float)):
        if not math.isfinite(value):
            return f"{name} is {value}"
        ranges = ((lowest, highest) for suffix, lowest, highest in _RANGES if field_name.endswith(suffix))
        lowest, highest = next(ranges, (-math.inf, math.inf))
        if not lowest <= value <= highest:
            return f"{name} is {value}, outside {lowest:g} to {highest:g}"
    return None


def _fault(name: str, value: object, expected: str) -> str:
    found = "None" if value is None else type(value).__name__
    if isinstance(value, (bool, int, float, str)):
        found = f"{value!r} ({found})"
    return f"{name} is {found} instead of {expected}" if name else f"{found} instead of {expected}"


def _title(expected: Any) -> str:
    return getattr(expected, "__name__", None) or str(expected)
