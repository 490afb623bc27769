"""Waiver files: what is accepted, and that every mistake in one is an error that names file and waiver."""

from __future__ import annotations

import pytest
from chipperf.contract import waivers
from chipperf.contract.waivers import Waiver, read_waivers
from chipperf.errors import ConfigError

BUG = 'check = "S1"\nkind = "bug"\nreason = "the generator is shared"\n'


@pytest.fixture
def waiver_file(tmp_path):
    def write(*tables):
        path = tmp_path / "contract-waivers.toml"
        path.write_text("".join(f"[[waiver]]\n{table}\n" for table in tables), encoding="utf-8")
        return path

    return write


def test_waivers_are_found_by_their_check(waiver_file):
    other = 'check = "S2"\nkind = "unsupported"\nreason = "无"\nissue = "https://acme.example/7"\nuntil_api = "2.0"\n'

    found = read_waivers(waiver_file(BUG, other))

    assert found == {
        "S1": Waiver(check="S1", kind="bug", reason="the generator is shared"),
        "S2": Waiver(check="S2", kind="unsupported", reason="无", issue="https://acme.example/7", until_api="2.0"),
    }


@pytest.mark.parametrize("kind", ["unsupported", "bug", "planned"])
def test_kind_is_kept(waiver_file, kind):
    assert read_waivers(waiver_file(BUG.replace("bug", kind)))["S1"].kind == kind


def test_file_without_waivers_waives_nothing(waiver_file):
    assert read_waivers(waiver_file()) == {}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (BUG.replace("S1", "S11"), "a waiver matches no check: there is no check 'S11' (did you mean 'S1'?)"),
        (BUG.replace("S1", "S*"), "a waiver matches no check: there is no check 'S*'"),
        (BUG.replace("S1", "s1"), "a waiver matches no check: there is no check 's1'"),
        (BUG.replace('"bug"', '"later"'), "waiver.0.kind: Input should be 'unsupported', 'bug' or 'planned'"),
        (BUG.replace("the generator is shared", "  "), "waiver.0.reason: "),
        (BUG.partition("reason")[0], "waiver.0.reason: Field required"),
        (BUG + 'because = "it is"\n', "waiver.0.because: Extra inputs are not permitted"),
        (BUG + 'until_api = "soon"\n', "waiver.0.until_api: "),
        (BUG + "until_api = 2.0\n", "waiver.0.until_api: "),
        (BUG + 'issue = ""\n', "waiver.0.issue: "),
    ],
)
def test_mistake_in_a_waiver_is_named_with_its_place(waiver_file, changed, fault):
    path = waiver_file(changed)

    with pytest.raises(ConfigError) as caught:
        read_waivers(path)

    assert caught.value.message.startswith(f"{path}: {fault}")
    assert caught.value.hint


def test_second_waiver_is_the_one_that_is_named(waiver_file):
    with pytest.raises(ConfigError, match=r"waiver\.1\.kind"):
        read_waivers(waiver_file(BUG, BUG.replace("S1", "S2").replace('"bug"', '"BUG"')))


def test_check_cannot_be_waived_twice(waiver_file):
    with pytest.raises(ConfigError, match="S1 is waived twice"):
        read_waivers(waiver_file(BUG, BUG.replace("bug", "planned")))


@pytest.mark.parametrize(
    "content",
    [b"[[waiver]\n", b"\xff\xfe", b'[waiver]\ncheck = "S1"\n', b'[[waivers]]\ncheck = "S1"\n', b'S1 = "bug"\n'],
    ids=["no TOML", "no text", "one table", "misspelled", "other keys"],
)
def test_file_that_holds_something_else_is_an_error(tmp_path, content):
    path = tmp_path / "waivers.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        read_waivers(path)

    assert str(path) in caught.value.message
    assert "[[waiver]]" in caught.value.hint


def test_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml.*No such file"):
        read_waivers(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("api", "until", "expired"),
    [("1.0", "1.0", True), ("1.1", "1.0", True), ("1.0", "1.1", False), ("1.9", "1.10", False), ("2.0", "1.10", True)],
)
def test_waiver_ends_with_its_api_version(waiver_file, monkeypatch, api, until, expired):
    monkeypatch.setattr(waivers, "API_VERSION", api)
    path = waiver_file(f'{BUG}until_api = "{until}"\n')

    if expired:
        with pytest.raises(ConfigError, match=f"S1 ended with API version {until}, this is {api}"):
            read_waivers(path)
    else:
        assert read_waivers(path)["S1"].until_api == until
