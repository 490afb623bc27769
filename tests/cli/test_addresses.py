"""Pages that errors and ``perf doctor`` name: by an address, and that page exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chipperf.errors import DOCUMENTATION, PerfError

if TYPE_CHECKING:
    from invocation import Invoke

ROOT = Path(__file__).parents[2]
NAMED = sorted(
    {
        page
        for file in (ROOT / "core" / "src").rglob("*.py")
        for page in re.findall(r"docs/([\w-]+\.(?:md|json))", file.read_text(encoding="utf-8"))
    }
)


def test_hint_names_a_page_by_its_address() -> None:
    assert PerfError("x", hint="docs/lint.md says how").hint == f"{DOCUMENTATION}/lint.md says how"
    assert PerfError("x", hint=f"see {DOCUMENTATION}/lint.md").hint == f"see {DOCUMENTATION}/lint.md"
    assert PerfError("x", hint="see mydocs/lint.md").hint == "see mydocs/lint.md"


@pytest.mark.parametrize("page", NAMED)
def test_page_that_the_code_names_exists(page: str) -> None:
    assert (ROOT / "docs" / page).is_file()


def test_addresses_are_those_of_the_project() -> None:
    project = (ROOT / "core" / "pyproject.toml").read_text(encoding="utf-8")

    assert f'Documentation = "{DOCUMENTATION}/index.md"' in project


def test_doctor_says_where_to_read_on(invoke: Invoke) -> None:
    shown = invoke("doctor").out
    pages = re.findall(rf"{re.escape(DOCUMENTATION)}/(\S+)", shown)

    assert {"installing.md", "plugin-guide.md"} <= set(pages)
    assert all((ROOT / "docs" / page).is_file() for page in pages)
