"""Reading of COCO annotation files into columns, and checks for contradictions in the columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chipperf.data.imagefolder import files_below
from chipperf.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

COCO_LAYOUT_HINT = (
    "expected DIR/train2017, DIR/val2017 and DIR/annotations/instances_{train,val}2017.json; "
    "`perf data check detr DIR` lists every problem"
)
_CULPRITS_SHOWN = 5


class Fault(NamedTuple):
    """A contradiction within an annotation file, or between the file and the files that it names.

    Attributes:
        code: Stable identifier of the fault type.
        message: What is wrong, with the file, the number of affected entries, and the first of them.
    """

    code: str
    message: str


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
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"{path}: has no list {key!r}", hint="name a COCO annotation file")
    return document


def column(
    entries: list[Any], key: str, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = (), default: Any = None
) -> NDArray[Any]:
    """Return the numbers under one key of all entries of a list.

    Args:
        entries: The list.
        key: The key.
        path: The file, for error messages.
        dtype: Type of the numbers.
        shape: Shape of the value of one entry.
        default: Value for a missing key; ``None`` makes a missing key an error.

    Raises:
        DataError: An entry lacks the key or has a value of another type or shape; the error names the entry.
    """
    get: Callable[[Any], Any] = (
        (lambda entry: entry[key]) if default is None else (lambda entry: entry.get(key, default))
    )

    def convert(chosen: list[Any]) -> NDArray[Any]:
        values = np.array([get(entry) for entry in chosen], dtype).reshape(len(chosen), *shape)
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
                raise _bad_entry(entry, key, path) from error
        raise


def text_column(entries: list[Any], key: str, path: Path) -> list[str]:
    """Return the text under ``key`` of each entry; raises like :func:`column`."""
    return _typed(entries, key, path, str)


def list_column(entries: list[Any], key: str, path: Path) -> list[list[Any]]:
    """Return the list under ``key`` of each entry; raises like :func:`column`."""
    return _typed(entries, key, path, list)


def _typed(entries: list[Any], key: str, path: Path, wanted: type) -> list[Any]:
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get(key), wanted):
            raise _bad_entry(entry, key, path)
    return [entry[key] for entry in entries]


def _bad_entry(entry: Any, key: str, path: Path) -> DataError:
    if not isinstance(entry, dict):
        return DataError(f"{path}: {entry!r:.60} stands where an entry should", hint="put the file right")
    who = next((f"the entry with {name} {entry[name]!r}" for name in ("id", "image_id") if name in entry), "an entry")
    what = f"has {entry[key]!r:.60} as {key!r}" if key in entry else f"has no {key!r}"
    return DataError(f"{path}: {who} {what}", hint="put the file right")


def category_faults(
    categories: NDArray[np.int64], labels: NDArray[np.int64], ids: NDArray[np.int64], largest: int, path: Path
) -> Iterator[Fault]:
    """Find category ids that are too large, and objects of categories that are not listed.

    Args:
        categories: Ids of the listed categories.
        labels: Category ids of the objects.
        ids: Ids of the objects.
        largest: Largest category id for which a model has an output.
        path: The file.
    """
    outside = categories[(categories < 1) | (categories > largest)]
    yield from listed_faults("category-range", f"category ids are outside 1-{largest}", outside, path)
    unknown = ~np.isin(labels, categories)
    what = f"annotations have a category that is not listed ({first_few(np.unique(labels[unknown]))})"
    yield from listed_faults("category-unknown", what, ids[unknown], path)


def unknown_image_faults(
    ids: NDArray[np.int64], image_ids: NDArray[np.int64], images: NDArray[np.int64], path: Path
) -> Iterator[Fault]:
    """Find objects of images that are not listed.

    Args:
        ids: Ids of the objects.
        image_ids: Image id of each object.
        images: Ids of the listed images.
        path: The file.
    """
    unknown = ~np.isin(image_ids, images)
    what = f"annotations name an image that is not listed ({first_few(np.unique(image_ids[unknown]))})"
    yield from listed_faults("image-unknown", what, ids[unknown], path)


def repeated_id_faults(code: str, what: str, ids: NDArray[np.int64], path: Path) -> Iterator[Fault]:
    """Find ids that occur more than once; ``what`` names the kind of id."""
    values, counts = np.unique(ids, return_counts=True)
    yield from listed_faults(code, f"{what} occur more than once", values[counts > 1], path)


def absent_file_faults(what: str, code: str, names: list[str], directory: Path, path: Path) -> Iterator[Fault]:
    """Find listed files that do not exist, by listing the directory once.

    Args:
        what: Name of the kind of file.
        code: Identifier of the fault.
        names: Names of the files.
        directory: Directory that must hold the files.
        path: The annotation file.
    """
    try:
        present = set(files_below(directory))
    except DataError as error:
        yield Fault("layout", error.message)
        return
    missing = [name for name in names if name not in present]
    if missing:
        yield Fault(code, f"{path}: {len(missing)} {what} are listed, but not in {directory}: {first_few(missing)}")


def listed_faults(code: str, what: str, culprits: NDArray[np.int64], path: Path) -> Iterator[Fault]:
    """Yield a fault that names the first culprits, if there are any."""
    if len(culprits):
        yield Fault(code, f"{path}: {len(culprits)} {what}: {first_few(culprits)}")


def first_few(culprits: Sequence[Any] | NDArray[Any]) -> str:
    """Return the first culprits in one clause, and whether there are more."""
    shown = ", ".join(str(culprit) for culprit in culprits[:_CULPRITS_SHOWN])
    return shown + (", …" if len(culprits) > _CULPRITS_SHOWN else "")
