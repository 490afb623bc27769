"""Operators break every hook, in one place at a time; ``make mutants`` alone holds what they make to the contract."""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

import pytest
from chipperf.plugin.hookspecs import VendorSpecs

from mutants.equivalent import EQUIVALENT
from mutants.generated import equivalents, generate, good_plugin_with_trace, hook_of
from mutants.generated_trial import Outcome, report
from mutants.mutant import install_mutant
from mutants.operators import edits

if TYPE_CHECKING:
    from pathlib import Path

generated_once = cache(generate)

QUERY = '''
@hookimpl
def perf_memory_query(device: torch.device) -> MemoryStats:
    """Read."""
    if device.index >= 8:
        raise DeviceError("no card")
    _torch_acme().synchronize(device)
    return MemoryStats(source="s", used_bytes=used(device), total_bytes=2**30)
'''
INFO = "_INFO = frozenset({Capability.FP16, Capability.BF16})"


def test_every_hook_has_mutants_and_each_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in generated_once()]
    assert {hook_of(mutant) for mutant in generated_once()} == {n for n in dir(VendorSpecs) if n.startswith("perf_")}
    assert len(set(names)) == len(names)


def test_mutants_differ_and_can_be_compiled() -> None:
    texts = [mutant.changes[0].new or "" for mutant in generated_once()]
    assert len(set(texts)) == len(texts)
    for text in texts:
        compile(text, "mutant", "exec")


def test_mutants_can_be_installed(tmp_path: Path) -> None:
    """Each of the texts they replace is there once; a mutant of each hook shows it for the others of the hook."""
    for mutant in {hook_of(mutant): mutant for mutant in generated_once()}.values():
        install_mutant(mutant, tmp_path / hook_of(mutant))


@pytest.mark.parametrize(
    ("source", "edit", "snippet"),
    [
        (QUERY, "times_1024:MemoryStats.used_bytes", "used_bytes=used(device) * 1024, total"),
        (QUERY, "none:MemoryStats.total_bytes", "total_bytes=None"),
        (QUERY, "swapped_with_total_bytes:MemoryStats.used_bytes", "used_bytes=2 ** 30, total_bytes=used(device)"),
        (QUERY, "set_reserved_bytes:return", "reserved_bytes=1"),
        (QUERY, "current_card:used(0)", "current_device())), total"),
        (QUERY, "emptied:MemoryStats.source", "source=''"),
        (QUERY, "dropped:synchronize", "pass\n    return"),
        (QUERY, "dropped:raise", "8:\n        pass"),
        (QUERY, "another_error:raise", "raise RuntimeError('no card')"),
        (QUERY, "shifted:if", "if device.index > 8"),
        (QUERY, "none:return", "return None"),
        (QUERY, "cached:call", "_kept['result'] = _good(device)"),
        (QUERY, "previous_arguments:call", "_kept.get('last', (device,))"),
        (QUERY, "leaves_directory:call", "os.chdir('/')"),
        (INFO, "dropped:FP16", "{Capability.BF16}"),
        (INFO, "added:UUID", "Capability.BF16, Capability.UUID}"),
    ],
)
def test_operator_changes_its_place(source: str, edit: str, snippet: str) -> None:
    texts = {f"{each.operator}:{each.place}": each.text for each in edits(ast.parse(source).body[0])}
    assert snippet in texts[edit]


def test_trace_shows_the_call_of_every_hook(tmp_path: Path) -> None:
    plugin = good_plugin_with_trace(str(tmp_path / "calls"))
    written = [f"print('{hook}', file=file)" for hook in dir(VendorSpecs) if hook.startswith("perf_")]
    assert sorted(text for text in written for change in plugin.changes if text in (change.new or "")) == written


def test_arguments_for_equivalence_are_of_mutants_that_exist() -> None:
    assert set(equivalents(generated_once()).values()) == set(EQUIVALENT.values())


def test_argument_for_a_mutant_that_is_no_longer_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EQUIVALENT, "perf_seed:turned_around:*", "nobody can tell")
    with pytest.raises(ValueError, match="perf_seed:turned_around"):
        equivalents(generated_once())


@pytest.mark.parametrize(
    ("survivors", "equivalent", "succeeded"),
    [(1, (), True), (2, (), False), (2, ("survivor 0",), True), (0, ("found 0",), False)],
)
def test_report_tells_share_and_survivors(
    survivors: int, equivalent: tuple[str, ...], succeeded: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = {f"found {index}": Outcome(check="A1") for index in range(9)}
    outcomes |= {f"survivor {index}": Outcome() for index in range(survivors)}
    assert report(outcomes, dict.fromkeys(equivalent, "nobody can tell")) == (not succeeded)
    shown = capsys.readouterr().out
    assert all(name in shown for name in outcomes if name.startswith("survivor") and name not in equivalent)
