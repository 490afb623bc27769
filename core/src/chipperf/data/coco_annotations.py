"""Reading of COCO annotation files into columns, and checks for contradictions in the columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chipperf.data.dataset_check import error, first_few
from chipperf.data.imagefolder import files_below
from chipperf.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from chipperf.data.dataset_check import DatasetFinding

T = TypeVar("T")

COCO_LAYOUT_HINT = (
    "expected DIR/train2017, DIR/val2017 and DIR/annotations/instances_{train,val}2017.json; "
    "`perf data check detr DIR` lists every problem"
)
_LISTS = ("images", "annotations", "categories")


def read_annotation_file(path: Path) -> dict[str, Any]:
    """Read an annotation file and check that it has the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: The file is missing, is not JSON (the error says where), or lacks one of the lists.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"the annotation file {path} is missing", hint=COCO_LAYOUT_HINT) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", hint=COCO_LAYOUT_HINT) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}",
            hint="the file is probably cut off; copy it again and compare its size",
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: not a text in UTF-8: {error}", hint="copy it again") from error
    for key in _LISTS:
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{path}: has no list {key!r}", hint="name a COCO annotation file")
    return document


class AnnotationFile:
    """The lists of an annotation file, and the contradictions found so far.

    A file that cannot be used raises :class:`DataError`; so do the columns of its lists for an entry that lacks the key
    or has a value of another type. The error names the entry.

    Attributes:
        faults: What is wrong within the file, or between it and the files that it names; each with the number of
            affected entries and the first of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        document = read_annotation_file(path)
        self.images, self.annotations, self.categories = (document[key] for key in _LISTS)
        self.faults: list[DatasetFinding] = []

    def numbers(
        self,
        entries: list[Any],
        key: str,
        dtype: DTypeLike = np.int64,
        shape: tuple[int, ...] = (),
        default: int | None = None,
    ) -> NDArray[Any]:
        """Return the numbers under one key of all entries; without ``default``, every entry must have the key."""

        def convert(chosen: list[Any]) -> NDArray[Any]:
            found = [entry[key] if default is None else entry.get(key, default) for entry in chosen]
            values = np.array(found, dtype).reshape(len(chosen), *shape)
            if not np.isfinite(values).all():
                raise ValueError("not a finite number")
            return values

        try:
            return convert(entries)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            for entry in entries:
                try:
                    convert([entry])
                except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                    raise self._bad_entry(entry, key) from error
            raise

    def values(self, entries: list[Any], key: str, wanted: type[T]) -> list[T]:
        """Return the values of a type under one key of all entries of a list."""
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get(key), wanted):
                raise self._bad_entry(entry, key)
        return [entry[key] for entry in entries]

    def _bad_entry(self, entry: Any, key: str) -> DataError:
        if not isinstance(entry, dict):
            return DataError(f"{self._path}: {entry!r:.60} stands where an entry should", hint="put the file right")
        named = (f"the entry with {name} {entry[name]!r}" for name in ("id", "image_id") if name in entry)
        what = f"has {entry[key]!r:.60} as {key!r}" if key in entry else f"has no {key!r}"
        return DataError(f"{self._path}: {next(named, 'an entry')} {what}", hint="put the file right")

    def report(self, code: str, what: str, culprits: NDArray[np.int64]) -> None:
        """Add a fault that names the first culprits, if there are any."""
        if len(culprits):
            self.faults.append(error(code, f"{self._path}: {len(culprits)} {what}: {first_few(culprits)}"))

    def report_repeated(self, code: str, what: str, ids: NDArray[np.int64]) -> None:
        """Add a fault for ids that occur more than once; ``what`` names the kind of id."""
        values, counts = np.unique(ids, return_counts=True)
        self.report(code, f"{what} occur more than once", values[counts > 1])

    def report_unlisted(
        self, code: str, what: str, ids: NDArray[np.int64], named: NDArray[np.int64], listed: NDArray[np.int64]
    ) -> None:
        """Add a fault for the objects ``ids`` that name an image or a category that is not listed."""
        unknown = ~np.isin(named, listed)
        self.report(code, f"{what} ({first_few(np.unique(named[unknown]))})", ids[unknown])

    def report_categories(
        self, categories: NDArray[np.int64], labels: NDArray[np.int64], ids: NDArray[np.int64], largest: int
    ) -> None:
        """Add faults for listed categories for which a model has no output, and for objects of other categories.

        ``labels`` has the category of each object, and ``largest`` is the last category with an output.
        """
        outside = categories[(categories < 1) | (categories > largest)]
        self.report("category-range", f"category ids are outside 1-{largest}", outside)
        what = "annotations have a category that is not listed"
        self.report_unlisted("category-unknown", what, ids, labels, categories)

    def report_absent(self, code: str, what: str, entries: list[Any], directory: Path) -> None:
        """Add a fault for files of the entries that do not exist, after one listing of their directory."""
        try:
            present = set(files_below(directory))
        except DataError as problem:
            self.faults.append(error("layout", problem.message))
            return
        missing = [entry["file_name"] for entry in entries if entry["file_name"] not in present]
        if missing:
            listed = f"{len(missing)} {what} are listed, but not in {directory}"
            self.faults.append(error(code, f"{self._path}: {listed}: {first_few(missing)}"))
