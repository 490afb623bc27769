"""What a case says about its data: the dataset it is defined on, and how data are checked and generated.

Importing this module imports no library for data; the functions of a case import theirs when they are called.
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
"""Called with the number of finished parts and of all parts."""

SampleSize = Literal["tiny", "real"]
"""Size of each generated sample: as the case's preset ``tiny`` takes them, or as the benchmark does."""


class DataCheck(Protocol):
    """Checks a directory before a case is trained on it."""

    def __call__(self, root: Path, expected: ReferenceDataset | None, *, full: bool, progress: Progress) -> CheckReport:
        """List everything that is wrong with a directory; change nothing in it and raise nothing about it.

        Args:
            root: The directory.
            expected: The dataset whose sizes it must have; ``None`` accepts any sizes.
            full: Read every sample completely, and not only as much as tells whether it can be read.
            progress: Called with the number of samples read and of all samples.
        """


class EnsureSample(Protocol):
    """Generates the dataset that a case is trained on where no other one is given."""

    def __call__(self, progress: Progress, root: Path | None = None, options: Mapping[str, Any] | None = None) -> Path:
        """Generate the dataset unless it is there, and return its directory.

        Args:
            progress: Called with the number of finished samples and of all samples.
            root: Directory that holds generated datasets; the user's cache directory if not given.
            options: Values by name, of the names in :attr:`CaseData.sample_options`.

        Raises:
            UsageError: An option has an unknown value.
            DataError: The dataset cannot be written.
        """


class EnsureFewSamples(Protocol):
    """Generates data for a few steps."""

    def __call__(self, samples: int, size: SampleSize, root: Path | None = None) -> Path:
        """Generate a dataset unless it is there, and return its directory.

        Args:
            samples: Number of training samples.
            size: Size of each sample.
            root: Directory that holds generated datasets; the user's cache directory if not given.

        Raises:
            DataError: The dataset cannot be written.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseData:
    """The data of a case.

    Attributes:
        reference: The dataset that the case is defined on.
        check: Checks a directory; ``None`` if the case has no check.
        ensure_sample: Generates the dataset that is used without ``--data``; ``None`` if there is no such dataset.
        sample_options: The options of ``perf data sample`` that ``ensure_sample`` takes, as Python spells them.
        ensure_few_samples: Generates data for a comparison of a few steps; ``None`` if such a comparison needs
            ``--data``.
    """

    reference: ReferenceDataset
    check: DataCheck | None = None
    ensure_sample: EnsureSample | None = None
    sample_options: tuple[str, ...] = ()
    ensure_few_samples: EnsureFewSamples | None = None
