"""The data of a case: its reference dataset, and functions that check and generate data.

Importing this module imports no data library; the functions of a case import their libraries when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chipperf.data.dataset_check import CheckReport
    from chipperf.data.dataset_identity import ReferenceDataset

Progress = Callable[[int, int], None]
"""Called with the number of finished parts and the total number."""

SampleSize = Literal["tiny", "real"]
"""Size of each generated sample: as in the case's preset ``tiny``, or as in the benchmark."""


class DataCheck(Protocol):
    """Checks a directory before training."""

    def __call__(self, root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
        """Return a report of all problems of a directory; raise no errors about them and change nothing.

        Args:
            root: The directory.
            expected: Dataset with the required sizes; ``None`` accepts any sizes.
            full: Whether to read every sample completely, not only enough to tell that it is readable.
            progress: Called with the number of samples read and the total number.
        """


class EnsureSample(Protocol):
    """Generates the default dataset of a case."""

    def __call__(self, progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
        """Generate the dataset if it does not exist, and return its directory.

        Args:
            progress: Called with the number of finished samples and the total number.
            root: Directory that holds generated datasets; by default in the user's cache directory.
            options: Values by name; the names are in :attr:`CaseData.sample_options`.

        Raises:
            UsageError: An option has an unknown value.
            DataError: The dataset cannot be written.
        """


class EnsureFewSamples(Protocol):
    """Generates data for a few steps."""

    def __call__(self, samples: int, size: SampleSize, root: Path | None = None) -> Path:
        """Generate a dataset of that many training samples; see :class:`EnsureSample`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseData:
    """The data of a case.

    Attributes:
        reference: The dataset for which the case is defined.
        check: Checks a directory; ``None`` if the case has no check.
        ensure_sample: Generates the dataset for runs without ``--data``; ``None`` if there is no such dataset.
        sample_options: Options of ``perf data sample`` that ``ensure_sample`` accepts, with their Python names.
        ensure_few_samples: Generates data for a comparison of a few steps; ``None`` if it needs ``--data``.
    """

    reference: ReferenceDataset
    check: DataCheck | None = None
    ensure_sample: EnsureSample | None = None
    sample_options: tuple[str, ...] = ()
    ensure_few_samples: EnsureFewSamples | None = None
