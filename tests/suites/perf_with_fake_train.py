"""``perf``, in which repeats and suites start the fake instead of ``perf train``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chipperf.cli import main, repeat
from chipperf.suites import execution, machines

repeat.TRAIN_COMMAND = execution.TRAIN_COMMAND = machines.TRAIN_COMMAND = (  # type: ignore[misc]
    sys.executable,
    str(Path(__file__).with_name("fake_train.py")),
)
machines.BEGIN_S = float(os.environ.get("FAKE_BEGIN_S", machines.BEGIN_S))  # type: ignore[misc]
machines.LOST_S = float(os.environ.get("FAKE_LOST_S", machines.LOST_S))  # type: ignore[misc]
machines.OVERDUE_S = float(os.environ.get("FAKE_LEAVE_S", machines.OVERDUE_S))  # type: ignore[misc]
main.main()
