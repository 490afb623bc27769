"""A name means one thing, and nothing grows beyond what can be read at once."""

from __future__ import annotations

from structure import classes, shared_class_names, shared_file_names

MOST_LINES_OF_A_CLASS = 250


def test_class_name_means_one_thing():
    assert shared_class_names() == {}


def test_file_name_means_one_thing():
    assert shared_file_names() == {}


def test_no_class_is_too_large_to_read():
    large = {f"{path.name}: {name}": lines for name, path, lines in classes() if lines > MOST_LINES_OF_A_CLASS}
    assert large == {}
