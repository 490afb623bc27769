"""Writes docs/record-fields.md, every field of a run's record as tables: ``python docs/generate_record.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.records.schema import json_schema
from marked_list import markdown, prose

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).with_name("record-fields.md")

INTRODUCTION = """\
# Fields of a record

`python docs/generate_record.py` makes this page from `chipperf/records/schema.py`.
[The JSON Schema](record.schema.json) tells programs the same. [Metrics](metrics.md) defines the measured values.

`record.json` is one JSON object. A field is required unless the table gives its default. Where a type has
*or [Missing](#missing)*, a value that is not known is an object that says why. Records of older schemas can be read.
"""


def page() -> str:
    """Return the content of docs/record-fields.md."""
    schema = json_schema()
    models = schema["$defs"]
    sections = [_section("RunRecord", schema), *(_section(name, models[name]) for name in _in_order(schema, models))]
    return "\n".join([INTRODUCTION, *sections])


def _in_order(schema: dict[str, Any], models: dict[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for name in _references(schema["properties"]):
        found.setdefault(name)
    for name in (left := list(found)):
        for further in _references(models[name]):
            if further not in found:
                found[further] = None
                left.append(further)
    return list(found)


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _section(name: str, model: dict[str, Any]) -> str:
    required = model.get("required", [])
    rows = [
        f"| `{field}` | {_type(content)} | {'' if field in required else _default(content)} |"
        for field, content in model["properties"].items()
    ]
    table = "\n".join(["| Field | Type | Default |", "| --- | --- | --- |", *rows])
    return f"## {name}\n\n{prose(model.get('description', ''))}\n\n{table}\n"


def _default(content: dict[str, Any]) -> str:
    default = content.get("default", {})
    if isinstance(default, dict) and "missing" in default:
        return ": ".join(filter(None, (f"`{default['missing']}`", default["reason"])))
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _type(content: dict[str, Any]) -> str:
    if "$ref" in content:
        name = content["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in content:
            return " or ".join(_type(each) for each in content[several])
    if "enum" in content:
        return " or ".join(f"`{each}`" for each in content["enum"])
    if "const" in content:
        return f"`{content['const']}`"
    if content.get("type") == "array":
        return f"list of {_type(content.get('items', {}))}"
    if content.get("type") == "object":
        values = content.get("additionalProperties")
        return f"object of {_type(values)}" if isinstance(values, dict) else "object"
    return markdown(content.get("format") or content.get("type") or "any JSON")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
