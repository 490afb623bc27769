"""The pages of commands, records and rooms are those of the code."""

from __future__ import annotations

import generate_architecture
import generate_cli
import generate_record
import pytest
from chipperf.cli.main import COMMANDS
from chipperf.records.schema import json_schema


@pytest.mark.parametrize(
    "script", [generate_architecture, generate_cli, generate_record], ids=lambda each: each.__name__
)
def test_committed_page_is_that_of_the_code(script):
    assert script.page() == script.PAGE.read_text(encoding="utf-8"), "run: make docs"


def test_translation_has_the_rooms_of_the_code():
    path = generate_architecture.TRANSLATION

    assert generate_architecture.page(path) == path.read_text(encoding="utf-8"), "run: make docs"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_a_section_with_its_options(name):
    section = generate_cli.page().partition(f"\n## `perf {name}`\n")[2]

    assert "| Option | Meaning | Default |" in section


def test_every_part_of_a_record_has_a_section():
    page = generate_record.page()

    assert all(f"\n## {name}\n" in page for name in json_schema()["$defs"])
    assert "| `budget_s` | number or null | `null` |" in page


def test_every_room_has_a_layer_and_a_purpose():
    rows = [line.split(" | ") for line in generate_architecture.page().splitlines() if line.startswith("| ")]
    rooms = {row[1].strip("`"): row for row in rows if row[0].removeprefix("| ").isdigit()}

    directories = {path.parent.name for path in generate_architecture.CORE.glob("*/__init__.py")}
    assert directories - {"vendors"} <= set(rooms)
    assert int(rooms["cli"][0].removeprefix("| ")) < int(rooms["records"][0].removeprefix("| "))
    assert all(row[2].removesuffix(" |") for row in rooms.values())
