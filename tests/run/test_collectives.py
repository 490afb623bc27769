"""What ranks accept from each other."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
from chipperf.plugin.types import DeviceInfo
from chipperf.records.schema import Missing
from chipperf.run.collectives import _load


def test_data_arrives_as_it_was_sent() -> None:
    info = DeviceInfo(index=1, name="A1", total_bytes=2)
    missing = Missing(missing="not_run")
    array = np.array([[1.5, -2.0]])

    received = _load(pickle.dumps({"records": [info, missing], "array": array, "rest": (1, None, "x", [2.5])}))

    assert received["records"] == [info, missing]
    np.testing.assert_array_equal(received["array"], array)
    assert received["rest"] == (1, None, "x", [2.5])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.f2py.__main__", "main"),
        ("chipperf.__main__", "main"),
        ("chipperf.records.store", "Path"),
        ("chipperf.records.store", "os.stat_result"),
    ],
    ids=["program of numpy", "program of chipperf", "class from elsewhere", "class by a path"],
)
def test_module_that_another_rank_names_is_not_imported(module: str, name: str) -> None:
    before = set(sys.modules)

    with pytest.raises(pickle.UnpicklingError, match="which is not data"):
        _load(f"c{module}\n{name}\n.".encode())

    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "function", [os.system, np.load, pickle.loads], ids=["system", "numpy function", "another pickle"]
)
def test_function_that_another_rank_names_is_not_called(function: object) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (function, ("echo attacked",))

    with pytest.raises(pickle.UnpicklingError, match="which is not data"):
        _load(pickle.dumps(Attack()))
