"""``perf``, in which repeats and suites start the fake instead of ``perf train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chipperf.cli import main, repeat
from chipperf.suites import execution

repeat.TRAIN_COMMAND = execution.TRAIN_COMMAND = (  # type: ignore[misc]
    sys.executable,
    str(Path(__file__).with_name("fake_train.py")),
)
execution.BEGIN_S = float(os.environ.get("FAKE_BEGIN_S", execution.BEGIN_S))  # type: ignore[misc]
execution.LOST_S = float(os.environ.get("FAKE_LOST_S", execution.LOST_S))  # type: ignore[misc]
execution.OVERDUE_S = float(os.environ.get("FAKE_LEAVE_S", execution.OVERDUE_S))  # type: ignore[misc]
main.main()
