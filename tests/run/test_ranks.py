"""Which rank a process is."""

from __future__ import annotations

import pytest
from chipperf import Rank
from chipperf.errors import PluginError
from chipperf.run.ranks import rank_from_environment, rank_variables

COMPLETE = {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "GROUP_RANK": "1"}


def test_without_a_launcher_a_process_is_alone() -> None:
    assert rank_from_environment({"HOME": "/"}) == Rank()


def test_launcher_variables_make_the_rank() -> None:
    rank = rank_from_environment(COMPLETE)

    assert rank == Rank(rank=9, local_rank=1, world_size=16, local_world_size=8, node_rank=1)
    assert not rank.is_main


@pytest.mark.parametrize("name", ["LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"])
@pytest.mark.parametrize("value", [None, "", "two"])
def test_missing_or_unreadable_variable_is_an_error(name: str, value: str | None) -> None:
    environment = {key: text for key, text in COMPLETE.items() if key != name}
    if value is not None:
        environment[name] = value

    with pytest.raises(PluginError, match="the launcher's variables are incomplete") as caught:
        rank_from_environment(environment)
    assert name in str(caught.value.hint)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"RANK": "16"},
        {"RANK": "-1"},
        {"LOCAL_RANK": "8"},
        {"LOCAL_RANK": "-1"},
        {"WORLD_SIZE": "4", "RANK": "1"},
        {"WORLD_SIZE": "0", "RANK": "0"},
    ],
)
def test_numbers_that_contradict_each_other_are_an_error(changes: dict[str, str]) -> None:
    with pytest.raises(PluginError, match="contradict each other"):
        rank_from_environment(COMPLETE | changes)


@pytest.mark.parametrize(
    ("host", "ranks_here", "is_alone"), [("127.0.0.1", 1, True), ("node0", 2, True), ("node0", 1, False)]
)
@pytest.mark.parametrize("given", [None, ""])
def test_gloo_listens_for_other_machines_only_if_there_are_some(
    host: str, ranks_here: int, is_alone: bool, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    if given is not None:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)

    variables = rank_variables(Rank(world_size=2, local_world_size=ranks_here), host, 1)

    assert ("GLOO_SOCKET_IFNAME" in variables) == is_alone
