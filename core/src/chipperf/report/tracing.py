"""Finding the record fields that a text was made from, by noting the reads while the text is made.

A traced record notes every read of its fields. The sources of a cell are not written by hand, so they always match the
code and the templates that make the cell.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from chipperf.records.schema import Missing
from chipperf.records.store import read_stored, record_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from chipperf.records.schema import Record

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_SOURCE = "_chipperf_source"


@dataclass(frozen=True, slots=True)
class FieldSource:
    """A field of a record, whose file has the digest ``sha256``. The empty path is the whole record."""

    sha256: str
    path: tuple[str | int, ...] = ()

    def child(self, step: str | int) -> FieldSource:
        """Return a field or an item of this field."""
        return FieldSource(self.sha256, (*self.path, step))

    @property
    def ancestors(self) -> tuple[FieldSource, ...]:
        """The fields that contain this one, the whole record first."""
        return tuple(FieldSource(self.sha256, self.path[:depth]) for depth in range(len(self.path)))

    @property
    def json_path(self) -> str:
        """The path as JSONPath (RFC 9535), for example ``$.metrics.p_train.median``."""
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)


@dataclass(slots=True)
class Reads:
    """The fields read since the last text was written, and the written texts, each with the fields read for it."""

    sources: list[FieldSource] = field(default_factory=list)
    written: list[tuple[str, tuple[FieldSource, ...]]] = field(default_factory=list)

    def take_written(self) -> list[tuple[str, tuple[FieldSource, ...]]]:
        """Return the texts written since the last call, and drop the reads without a text."""
        written, self.written = self.written, []
        self.sources.clear()
        return written


_watching: ContextVar[Reads | None] = ContextVar("watching", default=None)


@contextmanager
def watch() -> Iterator[Reads]:
    """Collect the fields of traced records that are read in this context."""
    reads = Reads()
    token = _watching.set(reads)
    try:
        yield reads
    finally:
        _watching.reset(token)


def note_read(*sources: FieldSource) -> None:
    """Note that these fields were read."""
    reads = _watching.get()
    if reads is not None:
        reads.sources.extend(sources)


def note_written(text: str) -> None:
    """Note that a text was made from all fields read since the previous text."""
    reads = _watching.get()
    if reads is not None:
        reads.written.append((text, tuple(reads.sources)))
        reads.sources.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedValue(Generic[T_co]):
    """A computed value that notes its sources on each read."""

    computed: T_co
    sources: tuple[FieldSource, ...]

    @property
    def value(self) -> T_co:
        """The value."""
        note_read(*self.sources)
        return self.computed


def track_each(compute: Callable[[], Iterable[T]]) -> Iterator[TrackedValue[T]]:
    """Yield every value that ``compute`` returns, with the fields read for it."""
    with watch() as reads:
        iterator = iter(compute())
    while True:
        with watch() as more:
            try:
                value = next(iterator)
            except StopIteration:
                return
        yield TrackedValue(computed=value, sources=(*reads.sources, *more.sources))


def trace(record: Record, sha256: str) -> Record:
    """Return an equal record that notes every read of its fields; ``sha256`` is the digest of its file."""
    return cast("Record", _traced(record, FieldSource(sha256)))


def read_traced(path: Path) -> Record:
    """Read the record of a run as a traced record, as :func:`~chipperf.records.store.read_record` does."""
    stored = read_stored(path)
    return trace(stored.record, stored.sha256)


def source_of(record: Record) -> FieldSource | None:
    """Return the source that stands for a whole traced record, or ``None`` for any other record."""
    return cast("FieldSource | None", getattr(record, _SOURCE, None))


def record_digest(record: Record) -> str:
    """Return the SHA-256, in hexadecimal, of the file that a record was read from or would be written to."""
    source = source_of(record)
    if source is None:
        return hashlib.sha256(record_text(record).encode()).hexdigest()
    note_read(source)
    return source.sha256


def simplify(sources: Iterable[FieldSource]) -> tuple[FieldSource, ...]:
    """Return each source once, in order, without sources that contain others. A list replaces several of its items."""
    distinct = tuple(dict.fromkeys(sources))
    if len(distinct) < 2:
        return distinct
    items: dict[FieldSource, set[int]] = {}
    for source in distinct:
        for above, step in zip(source.ancestors, source.path, strict=True):
            if isinstance(step, int):
                items.setdefault(above, set()).add(step)
    lists = {above for above, indices in items.items() if len(indices) > 1}
    merged = dict.fromkeys(next((above for above in source.ancestors if above in lists), source) for source in distinct)
    containing = {above for source in merged for above in source.ancestors}
    return tuple(source for source in merged if source not in containing)


class _Traced:
    """Notes the reads of a model's fields."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        cls: type[Any] = type(self)
        if name not in cls.model_fields:
            return value
        source: FieldSource = super().__getattribute__(_SOURCE)
        # A missing value counts as one field.
        return _read(value, source if issubclass(cls, Missing) else source.child(name))


class _TracedList(list[Any]):
    """A list whose items are traced when they are read."""

    def __init__(self, items: Iterable[Any], source: FieldSource) -> None:
        super().__init__(items)
        self._source = source

    def __iter__(self) -> Iterator[Any]:
        for index, item in enumerate(super().__iter__()):
            yield _read(item, self._source.child(index))

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return item if isinstance(index, slice) else _read(item, self._source.child(index % len(self)))


def _read(value: Any, source: FieldSource) -> Any:
    note_read(source)
    if isinstance(value, BaseModel):
        return _traced(value, source)
    return _TracedList(value, source) if isinstance(value, list) else value


def _traced(model: BaseModel, source: FieldSource) -> BaseModel:
    traced = _traced_class(type(model)).model_construct(model.model_fields_set, **model.__dict__)
    object.__setattr__(traced, _SOURCE, source)
    return traced


@cache
def _traced_class(model: type[BaseModel]) -> type[BaseModel]:
    namespace = {"__module__": model.__module__, "__doc__": model.__doc__, "model_config": ConfigDict(defer_build=True)}
    metaclass: Any = type(model)
    return cast("type[BaseModel]", metaclass(model.__name__, (_Traced, model), namespace))
