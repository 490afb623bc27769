"""Building and caching the simulated accelerator's backend, with a fake compiler."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import acme_build
import pytest

if TYPE_CHECKING:
    from pathlib import Path

COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "fake 1.0"; exit; fi
echo call >> "$0.calls"
while [ "$1" != -o ]; do shift; done
sleep 0.1
echo library > "$2"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that takes everything and counts its calls; the cache is empty."""
    path = tmp_path / "compiler"
    path.write_text(COMPILER, encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def calls(compiler: Path) -> int:
    return len(compiler.with_suffix(".calls").read_text(encoding="utf-8").splitlines())


def test_library_is_compiled_once_however_many_ask(compiler: Path) -> None:
    with ThreadPoolExecutor(3) as executor:
        asked = [executor.submit(acme_build.library) for _ in range(3)]
    (library,) = {future.result() for future in asked}
    assert acme_build.library() == library
    assert library.read_text(encoding="utf-8") == "library\n"
    assert calls(compiler) == 1


def test_other_source_and_other_compiler_make_another_library(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = acme_build.library()
    compiler.write_text(COMPILER.replace("1.0", "1.1"), encoding="utf-8")
    second = acme_build.library()
    source = tmp_path / "other.cpp"
    source.write_text("", encoding="utf-8")
    monkeypatch.setattr(acme_build, "SOURCE", source)
    assert len({first, second, acme_build.library()}) == 3


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(acme_build.CompilerMissing, match="no-such-compiler is not on PATH"):
        acme_build.library()


def test_failed_compilation_says_why_and_leaves_no_library(compiler: Path) -> None:
    compiler.write_text(COMPILER.replace('echo library > "$2"', 'echo library > "$2"; echo wrong >&2; exit 1'))
    with pytest.raises(RuntimeError, match=r"cannot compile acme\.cpp:\nwrong"):
        acme_build.library()
    assert not [path for path in compiler.parent.rglob("acme-*")]
