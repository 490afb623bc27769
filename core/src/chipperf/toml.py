"""Reading TOML."""

from __future__ import annotations

import sys
from typing import Any


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of a TOML document; any other text is a ``ValueError``."""
    # Imported here: every command imports this module, and few read TOML. tomli is the parser of older Pythons.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    content: dict[str, Any] = tomllib.loads(text)
    return content
