"""Strict reading of COCO annotation files into columns, and checks for contradictions in the columns.

Only what is read here is checked, trained on and evaluated. Text is not a number, and ``1.0`` is a whole number.
"""

from __future__ import annotations

import json
import os
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chipperf.data.dataset_check import error, first_few
from chipperf.data.dataset_files import files_below, read_file
from chipperf.errors import DataError, distinct_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from chipperf.data.dataset_check import DatasetFinding

T = TypeVar("T")

COCO_LAYOUT_HINT = (
    "expected DIR/train2017, DIR/val2017 and DIR/annotations/instances_{train,val}2017.json, for segments also "
    "DIR/panoptic_{train,val}2017 and DIR/annotations/panoptic_{train,val}2017.json; "
    "`perf data check detr DIR` lists every problem"
)
_LISTS = ("images", "annotations", "categories")
_FARTHEST_PX = 2**31
_WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def read_annotation_file(path: Path) -> dict[str, Any]:
    """Read an annotation file and check that it has the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: The file is missing, is not JSON (the error says where), or lacks one of the lists.
    """
    if not os.path.lexists(path):
        raise DataError(f"the annotation file {path} is missing", hint=COCO_LAYOUT_HINT)
    try:
        document: dict[str, Any] = json.loads(read_file(path), object_pairs_hook=distinct_keys)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}",
            hint="the file is probably cut off; copy it again and compare its size",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON in UTF-8: {error}", hint="copy it again, or correct it") from error
    for key in _LISTS:
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{path}: has no list {key!r}", hint="name a COCO annotation file")
    return document


def of_type(values: list[Any], *kinds: type) -> list[Any]:
    """Return the values; raises :class:`TypeError` if one has another type."""
    if not set(map(type, values)) <= set(kinds):
        raise TypeError("of another type")
    return values


def numbers(values: list[Any]) -> NDArray[np.float64]:
    """Return finite numbers."""
    found = np.array(of_type(values, int, float), np.float64)
    if not np.isfinite(found).all():
        raise ValueError("not a finite number")
    return found


def whole_numbers(values: list[Any]) -> NDArray[np.int64]:
    """Return whole numbers; a number with a fraction is an error, and never rounded."""
    whole = list(map(int, of_type(values, int, float)))
    if whole != values:
        raise ValueError("not a whole number")
    return np.array(whole, np.int64)


def boxes(values: list[Any]) -> NDArray[np.float64]:
    """Return boxes of four numbers that can be pixels, shape ``(n, 4)``."""
    if any(len(box) != 4 for box in values):
        raise ValueError("not four numbers")
    found = numbers(list(chain.from_iterable(values))).reshape(-1, 4)
    if (np.abs(found) > _FARTHEST_PX).any():
        raise ValueError("not in pixels")
    return found


def flags(values: list[Any]) -> NDArray[np.bool_]:
    """Return yes and no, written as 1 and 0 or as true and false."""
    if any(value not in (0, 1) for value in values):
        raise ValueError("neither 0 nor 1")
    return np.array(values, np.bool_)


def texts(values: list[Any]) -> list[str]:
    """Return texts that can be names of files."""
    for value in of_type(values, str):
        os.fsencode(value)
    return values


def segmentations(values: list[Any]) -> list[Any]:
    """Return polygons and run-length codes of numbers; whether they can be drawn, their image decides."""
    for value in values:
        if isinstance(value, dict):
            if not isinstance(value["counts"], str):
                whole_numbers(value["counts"])
            whole_numbers(value["size"])
        elif value is not None:
            [polygons] = of_type([value], list)
            numbers(list(chain.from_iterable(of_type(polygons, list))))
    return values


class AnnotationFile:
    """The lists of an annotation file, and the contradictions found so far.

    A file that cannot be used raises :class:`DataError`.

    Attributes:
        path: The file.
        faults: What is wrong within the file, or between it and the files that it names; each with the number of
            affected entries and the first of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        document = read_annotation_file(path)
        self.images, self.annotations, self.categories = (document[key] for key in _LISTS)
        self.faults: list[DatasetFinding] = []

    def column(self, entries: list[Any], key: str, convert: Callable[[list[Any]], T], *default: Any) -> T:
        """Return the values under one key of all entries; without ``default``, every entry must have the key.

        Raises:
            DataError: An entry lacks the key, or its value cannot be converted; the error names the first.
        """

        def read(chosen: list[Any]) -> T:
            return convert([entry.get(key, *default) if default else entry[key] for entry in chosen])

        try:
            return read(entries)
        except _WRONG as error:
            for entry in entries:
                try:
                    read([entry])
                except _WRONG:
                    raise self._bad_entry(entry, key) from error
            raise

    def _bad_entry(self, entry: Any, key: str) -> DataError:
        if not isinstance(entry, dict):
            return DataError(f"{self.path}: {entry!r:.60} is in the place of an entry", hint="correct the file")
        named = (f"the entry with {name} {entry[name]!r:.60}" for name in ("id", "image_id") if name in entry)
        what = f"has {entry[key]!r:.60} as {key!r}" if key in entry else f"has no {key!r}"
        return DataError(f"{self.path}: {next(named, 'an entry')} {what}", hint="correct the file")

    def report(self, code: str, what: str, culprits: NDArray[np.int64]) -> None:
        """Add a fault that names the first culprits, if there are any."""
        if len(culprits):
            self.faults.append(error(code, f"{self.path}: {len(culprits)} {what}: {first_few(culprits)}"))

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
        self.report_repeated("repeated-category", "category ids", categories)
        outside = categories[(categories < 1) | (categories > largest)]
        self.report("category-range", f"category ids are outside 1-{largest}", outside)
        what = "annotations have a category that is not listed"
        self.report_unlisted("category-unknown", what, ids, labels, categories)

    def report_absent(self, code: str, what: str, names: list[str], directory: Path) -> None:
        """Add a fault for listed files that do not exist, after one listing of their directory."""
        try:
            present = set(files_below(directory))
        except DataError as problem:
            self.faults.append(error("layout", problem.message))
            return
        missing = [name for name in names if name not in present]
        if missing:
            listed = f"{len(missing)} {what} are listed, but not in {directory}"
            self.faults.append(error(code, f"{self.path}: {listed}: {first_few(missing)}"))
