"""The store of the ranks, also with builds of torch older than the one that the tests run with."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch.distributed
from chipperf.errors import PluginError
from chipperf.plugin.types import Rank
from chipperf.run.rendezvous import LOOPBACK, connect_store, is_loopback, listen, open_store
from torch.distributed import TCPStore

FIRST, SECOND = (Rank(rank=rank, world_size=2, local_rank=rank, local_world_size=2) for rank in range(2))


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", LOOPBACK)
    monkeypatch.setenv("MASTER_PORT", str(port))


def without_socket_for_libuv(*arguments: Any, use_libuv: bool = True, **options: Any) -> TCPStore:
    """Stands for the store of torch 2.4."""
    if use_libuv and "master_listen_fd" in options:
        raise NotImplementedError("The libuv TCPStore backend does not support initialization with an listen fd.")
    return TCPStore(*arguments, use_libuv=use_libuv, **options)


class StoreWithoutSocket:
    """Stands for the store of torch 2.0, which takes no socket."""

    def __init__(self) -> None:
        """__init__(self, host_name: str, port: int, world_size: Optional[int] = None, is_master: bool = False)"""


@pytest.mark.parametrize("store", [TCPStore, without_socket_for_libuv], ids=["newest", "2.4"])
def test_ranks_meet_at_a_store_on_one_address(monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    monkeypatch.setattr(without_socket_for_libuv, "__init__", TCPStore.__init__, raising=False)
    monkeypatch.setattr(torch.distributed, "TCPStore", store)

    held = open_store(FIRST, 10)
    held.set("key", "value")

    assert connect_store(10).get("key") == b"value"


@pytest.mark.parametrize("rank", [FIRST, SECOND])
def test_torch_without_such_a_store_is_refused_on_every_rank_before_it_waits(
    monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    monkeypatch.setattr(torch.distributed, "TCPStore", StoreWithoutSocket)

    with pytest.raises(PluginError, match="this torch cannot give the ranks a store") as caught:
        open_store(rank, 10)

    assert caught.value.hint == "use torch 2.1 or one rank"


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("localhost", True),
        ("127.0.1.1", True),
        ("::1", True),
        ("LocalHost", True),
        ("10.0.0.1", False),
        ("node", False),
    ],
)
def test_loopback(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


@pytest.mark.parametrize("host", ["localhost", "127.0.1.1"])
def test_this_machine_alone_is_not_listened_to_from_outside(host: str) -> None:
    with listen(host) as listening:
        assert listening.getsockname()[0].startswith("127.")
