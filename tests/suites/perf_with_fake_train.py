"""``perf``, in which repeats and suites start the fake instead of ``perf train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chipperf.cli import main, repeat, suite
from chipperf.suites import following

repeat.TRAIN_COMMAND = suite.TRAIN_COMMAND = (  # type: ignore[misc]
    sys.executable,
    str(Path(__file__).with_name("fake_train.py")),
)
following.BEGIN_S = float(os.environ.get("FAKE_BEGIN_S", following.BEGIN_S))  # type: ignore[misc]
following.LOST_S = float(os.environ.get("FAKE_LOST_S", following.LOST_S))  # type: ignore[misc]
following._LEAVE_S = float(os.environ.get("FAKE_LEAVE_S", following._LEAVE_S))  # type: ignore[misc]
main.main()
