"""docs/training.md lists the precisions that there are."""

from __future__ import annotations

import generate_precisions


def test_committed_table_is_that_of_the_code():
    assert generate_precisions.page() == generate_precisions.PAGE.read_text(encoding="utf-8"), "run: make docs"
