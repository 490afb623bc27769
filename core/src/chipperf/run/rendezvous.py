"""The key-value store through which the ranks of a run find each other: a torch ``TCPStore`` that rank 0 holds.

On one machine it listens on the loopback address. torch's own ``env://`` would listen on all of the machine's.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from chipperf.errors import PluginError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from chipperf.plugin.types import Rank

LOOPBACK = "127.0.0.1"

SOCKET_VARIABLE = "CHIPPERF_STORE_SOCKET"
"""Descriptor of the listening socket that the launcher hands to rank 0, so that no other program can take its port."""


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address means this machine alone."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def listen(host: str, port: int = 0) -> socket.socket:
    """Return a socket that listens on the loopback address, or on all addresses if ``host`` is not this machine alone.

    A ``port`` of 0 selects a free one; one that is taken is an :class:`OSError`.
    """
    if is_loopback(host):
        # Debian's name for a machine alone is 127.0.1.1.
        address = LOOPBACK if host.lower() == "localhost" else host
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def open_store(rank: Rank, timeout_s: float) -> TCPStore:
    """Return the ranks' store, which rank 0 holds; ``RuntimeError`` if it does not answer in time.

    torch 2.0 has no such store: :class:`PluginError`.
    """
    # Every rank looks, so that none waits for a store that rank 0 cannot open.
    require_store()
    if not rank.is_main:
        return connect_store(timeout_s)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = _address()
    given = os.environ.pop(SOCKET_VARIABLE, None)
    descriptor = int(given) if given is not None else listen(host, port).detach()
    serve = partial(
        TCPStore,
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=descriptor,
    )
    try:
        return serve()
    except NotImplementedError:
        # In torch 2.4, the default kind of store takes no socket.
        return serve(use_libuv=False)


def require_store() -> None:
    """Raise :class:`PluginError` with torch 2.0, whose store takes no socket."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if "master_listen_fd" not in (TCPStore.__init__.__doc__ or ""):
        raise PluginError(
            "this torch cannot give the ranks a store that listens on one address", hint="use torch 2.1 or one rank"
        )


def connect_store(timeout_s: float) -> TCPStore:
    """Return a connection to the store of rank 0; ``RuntimeError`` if it does not answer in time."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = _address()
    return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=timeout_s))


def _address() -> tuple[str, int]:
    try:
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    except (KeyError, ValueError) as error:
        raise RuntimeError("MASTER_ADDR and MASTER_PORT name no store") from error
