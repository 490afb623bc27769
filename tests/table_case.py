"""A case as another package adds it: a linear model on a table of numbers, in one file that core cannot read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from chipperf.cases.base import Case, CaseData, Hyperparameters, ReportProfile
from chipperf.data.dataset_identity import ReferenceDataset
from chipperf.errors import DataError
from chipperf.plugin.types import Title

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.cases.base import Progress
    from chipperf.data.dataset_check import CheckReport
    from numpy.typing import NDArray
    from support import FakeDistributions

FILE = "table.npy"
FEATURES = 8
"""Columns before the last one, which holds the value to be learned."""

REFERENCE = ReferenceDataset(name="sums2026", title="Sums 2026", train_samples=48, eval_samples=16, classes=None)


def read_table(root: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows for training and those for evaluation, which are the last quarter."""
    import numpy as np

    try:
        table = np.load(root / FILE)
    except (OSError, ValueError) as error:
        raise DataError(f"{root / FILE} is not a table: {error}") from error
    if table.ndim != 2 or table.shape[1] != FEATURES + 1:
        raise DataError(f"{root / FILE} has the shape {table.shape} instead of rows of {FEATURES + 1} numbers")
    split = len(table) * 3 // 4
    return table[:split], table[split:]


def write_table(root: Path, rows: int = REFERENCE.train_samples + REFERENCE.eval_samples) -> Path:
    """Write a table whose values are weighted sums of the features."""
    import numpy as np

    features = np.random.RandomState(0).standard_normal((rows, FEATURES))
    values = features @ np.arange(1, FEATURES + 1)
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / FILE, np.column_stack([features, values]).astype("float32"))
    return root


def check_table(root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
    import numpy as np
    from chipperf.data.dataset_check import CheckReport, check_counts, error

    try:
        train, evaluation = read_table(root)
    except DataError as problem:
        findings, counts = [error("layout", problem.message)], (0, 0)
    else:
        counts = (len(train), len(evaluation))
        findings = [] if expected is None else check_counts(*counts, None, expected)
        if full and not (np.isfinite(train).all() and np.isfinite(evaluation).all()):
            findings.append(error("not-finite", f"{root / FILE} holds values that are not finite"))
    progress(sum(counts), sum(counts))
    return CheckReport(
        root=str(root),
        train_samples=counts[0],
        eval_samples=counts[1],
        fully_decoded=full,
        findings=tuple(findings),
    )


def ensure_table(progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
    assert root is not None
    return write_table(root / "sums", rows=64)


def load_workload() -> Any:
    from table_workload import TableWorkload

    return TableWorkload


CASE = Case(
    name="sums",
    version="1.0",
    summary="a linear model on a table",
    base=Hyperparameters(
        model="linear",
        dataset=REFERENCE.name,
        target=0.5,
        epochs=4,
        batch_size=4,
        lr=0.05,
        eval_batch_size=16,
        seed=0,
        measure_warmup_steps=1,
        measure_window_steps=4,
        measure_core_steps=2,
    ),
    presets={"full": {}},
    metric="r2",
    report=ReportProfile(
        model_title="linear",
        task=Title(zh="回归", en="Regression"),
        quality_column="R2",
        quality_legend=Title(zh="决定系数", en="coefficient of determination"),
        sample_noun=Title(zh="行", en="rows"),
        quality_as_percent=False,
    ),
    data=CaseData(reference=REFERENCE, check=check_table, ensure_sample=ensure_table),
    load_workload=load_workload,
)


def install_table_case(distributions: FakeDistributions) -> str:
    """Provide the case by a distribution; return the ``PYTHONPATH`` on which processes find it."""
    distributions.add("perf-sums", "[chipperf.cases]\nsums = table_case:CASE\n")
    return os.pathsep.join([distributions.python_path, os.path.dirname(__file__)])
