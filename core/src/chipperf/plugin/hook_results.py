"""Checks of the value that a vendor's hook returned against the type in the specification."""

from __future__ import annotations

import functools
import math
import types
from dataclasses import fields, is_dataclass
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
    ("index", 0.0, math.inf),
    ("workers_per_rank", 0.0, math.inf),
)
"""Suffix of a field's name, lowest value and highest value. The first matching suffix counts."""

_MAY_BE_BLANK: Final = frozenset({"value"})


def describe_mismatch(value: object, expected: Any) -> str | None:
    """Return what is wrong with ``value``, or ``None`` if it has the ``expected`` type and plausible numbers.

    Args:
        value: The return value of a hook.
        expected: A type as in an annotation: a dataclass (a subclass does not match), ``tuple[X, ...]``,
            ``frozenset[X]``, a union, a ``Literal``, or a plain class.

    Returns:
        A phrase that follows "returned", for example ``dict instead of ProbeResult`` or ``a ProbeResult whose
        devices[0].name is blank``.
    """
    fault = _fault_at("", value, expected)
    if fault is None or type(value) is not (get_origin(expected) or expected):
        return fault
    return f"a {type(value).__name__} whose {fault}"


def _fault_at(name: str, value: object, expected: Any) -> str | None:
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return _fault_in_union(name, value, get_args(expected))
    if origin is Literal:
        return None if value in get_args(expected) else _fault(name, value, " or ".join(map(repr, get_args(expected))))
    if origin in (tuple, frozenset):
        return _fault_in_items(name, value, origin, get_args(expected)[0])
    if is_dataclass(expected):
        return _fault_in_fields(name, value, expected)
    return _fault_in_scalar(name, value, expected)


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


def _fault_in_items(name: str, value: Any, container: Any, item_type: Any) -> str | None:
    if not isinstance(value, container):
        return _fault(name, value, f"{container.__name__} of {_title(item_type)}")
    faults = (_fault_at(f"{name}[{position}]", item, item_type) for position, item in enumerate(value))
    return next((fault for fault in faults if fault), None)


def _fault_in_fields(name: str, value: Any, expected: Any) -> str | None:
    hints = _hints_of(expected)
    if type(value) is not expected:
        return _fault(name, value, _title(expected))
    faults = (
        _fault_at(f"{name}.{field.name}".lstrip("."), getattr(value, field.name), hints[field.name])
        for field in fields(expected)
    )
    return next((fault for fault in faults if fault), None)


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
    if isinstance(value, str) and not value.strip() and field_name not in _MAY_BE_BLANK:
        return f"{name} is blank"
    if isinstance(value, (int, float)):
        return _fault_in_number(name, value, field_name)
    return None


def _fault_in_number(name: str, value: float, field_name: str) -> str | None:
    if not math.isfinite(value):
        return f"{name} is {value}"
    for suffix, lowest, highest in _RANGES:
        if field_name.endswith(suffix):
            return None if lowest <= value <= highest else f"{name} is {value}, outside {lowest:g} to {highest:g}"
    return None


def _fault(name: str, value: object, expected: str) -> str:
    found = (
        "None" if value is None else type(value).__name__ if isinstance(value, (dict, list, tuple)) else _show(value)
    )
    return f"{name} is {found} instead of {expected}" if name else f"{found} instead of {expected}"


def _show(value: object) -> str:
    return f"{value!r} ({type(value).__name__})" if isinstance(value, (bool, int, float, str)) else type(value).__name__


def _title(expected: Any) -> str:
    return getattr(expected, "__name__", None) or str(expected)
