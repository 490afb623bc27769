"""Writes docs/record.schema.json, the JSON Schema of run records: ``python docs/generate_schema.py``."""

from __future__ import annotations

import json
from pathlib import Path

from chipperf.records.schema import json_schema

FILE = Path(__file__).with_name("record.schema.json")


def content() -> str:
    """Return the content of docs/record.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(content(), encoding="utf-8")
