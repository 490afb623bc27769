"""Core treats all vendors alike, so it knows none of them by name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# "cuda" is a device type that several vendors share, and "nccl" a backend; neither is a vendor.
VENDOR = re.compile(r"nvidia|metax|kunlun|昆仑|沐曦|英伟达", re.IGNORECASE)
SOURCES = (ROOT / "core", ROOT / "templates")
# Names of cards and makers are data, which anybody can extend, and no code knows any of them.
DATA = ROOT / "core" / "src" / "chipperf" / "documents" / "card_names.toml"


def files_of_core():
    return [
        path
        for source in SOURCES
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and path != DATA
        and "__pycache__" not in path.parts
        and path.suffix in {".py", ".j2", ".toml", ".css", ".js"}
    ]


def test_files_of_core_are_found():
    assert ROOT / "core" / "src" / "chipperf" / "plugin" / "session.py" in files_of_core()


def test_data_with_names_is_where_it_is_looked_for():
    assert VENDOR.search(DATA.read_text(encoding="utf-8"))


def test_core_names_no_vendor():
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files_of_core()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if VENDOR.search(line)
    ]

    assert not named, "\n".join(named)
