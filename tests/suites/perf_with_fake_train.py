"""``perf``, in which repeats and suites start the fake instead of ``perf train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chipperf.cli import main, repeat, suite
from chipperf.suites import follower

repeat.TRAIN_COMMAND = suite.TRAIN_COMMAND = (  # type: ignore[misc]
    sys.executable,
    str(Path(__file__).with_name("fake_train.py")),
)
follower.BEGIN_S = float(os.environ.get("FAKE_BEGIN_S", follower.BEGIN_S))  # type: ignore[misc]
follower.LOST_S = float(os.environ.get("FAKE_LOST_S", follower.LOST_S))  # type: ignore[misc]
follower._LEAVE_S = float(os.environ.get("FAKE_LEAVE_S", follower._LEAVE_S))  # type: ignore[misc]
main.main()
