"""Which signals tell a program to stop."""

from __future__ import annotations

import signal

import pytest
from chipperf.run.signals import STOP_SIGNALS, stop_signals_handled


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_handler_hears_every_stop_signal_and_is_put_back(number: signal.Signals) -> None:
    heard: list[int] = []
    # A shell that starts the tests in the background lets them ignore SIGINT.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with stop_signals_handled(lambda signum, frame: heard.append(signum)):
            signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)

    assert heard == [number]


def test_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    heard: list[int] = []
    try:
        with stop_signals_handled(lambda signum, frame: heard.append(signum)):
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)

    assert heard == []
