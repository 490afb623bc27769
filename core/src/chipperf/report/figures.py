"""Functions for all pictures: fonts, drawing without a display, and equal bytes for equal content.

Functions import matplotlib themselves, so that it is needed only for drawing.
"""

from __future__ import annotations

import io
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from chipperf.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure

PictureFormat = Literal["png", "svg"]

_LATIN_FAMILY = "DejaVu Sans"
"""The font that comes with matplotlib."""

_CHINESE_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "SimHei", "Heiti SC"),
    # matplotlib before 3.11 finds only the first font of a collection. In Noto's collection, it is this one.
    "Noto Sans CJK JP",
)

_METADATA: dict[PictureFormat, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
"""Metadata of a picture, without entries that differ between pictures of the same content."""


def has_matplotlib() -> bool:
    """Return whether matplotlib is installed, without importing it."""
    return find_spec("matplotlib") is not None


def require_matplotlib(extra: str) -> None:
    """Raise a :class:`PluginError` if matplotlib, which the named extra of chipperf installs, is not installed."""
    if not has_matplotlib():
        raise PluginError("matplotlib is not installed", hint=f"pip install 'chipperf[{extra}]'")


def can_write(text: str, fonts: Sequence[str]) -> bool:
    """Return whether every character of ``text`` is in one of the font families."""
    from matplotlib.font_manager import get_font

    found = [get_font(file) for family in fonts if (file := _font_file(family))]
    return all(any(font.get_char_index(ord(character)) for font in found) for character in text)


def find_fonts() -> tuple[str, ...]:
    """Return the families in which a character is searched: matplotlib's own and, if there is one, a Chinese one."""
    chinese = next(filter(_font_file, _CHINESE_FAMILIES), None)
    if chinese is None and _add_new_fonts():
        chinese = next(filter(_font_file, _CHINESE_FAMILIES), None)
    return (_LATIN_FAMILY, chinese) if chinese else (_LATIN_FAMILY,)


@contextmanager
def drawing_style(fonts: Sequence[str]) -> Iterator[None]:
    """Draw and save pictures in this context, so that they depend neither on the user's settings nor on the time."""
    import matplotlib.style

    settings = {
        "font.family": list(fonts),
        "savefig.dpi": 150,
        # matplotlib makes element ids from this and the content instead of from a random number.
        "svg.hashsalt": "chipperf",
        # A viewer without the font shows the text too.
        "svg.fonttype": "path",
        # A device's name is not a formula.
        "text.parse_math": False,
    }
    with matplotlib.style.context(["default", settings]):
        yield


def make_figure(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure with automatic layout."""
    # pyplot would need a display and global state.
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def picture_bytes(figure: Figure, picture_format: PictureFormat) -> bytes:
    """Return a figure as a file. Equal content, fonts and version of matplotlib give equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format=picture_format, metadata=_METADATA[picture_format])
    return file.getvalue()


def _add_new_fonts() -> bool:
    """Add fonts to matplotlib that were installed after it made its list, and return whether there are any."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    added = False
    for file in sorted(set(findSystemFonts()) - {entry.fname for entry in fontManager.ttflist}):
        # Skip a font that cannot be read. Its reader may raise any exception.
        with suppress(Exception):
            fontManager.addfont(file)
            added = True
    return added


def _font_file(family: str) -> str | None:
    from matplotlib.font_manager import FontProperties, fontManager

    try:
        return str(fontManager.findfont(FontProperties(family=[family]), fallback_to_default=False))
    except ValueError:
        return None
