"""``perf``, in which repeats and suites start the fake instead of ``perf train``."""

from __future__ import annotations

import sys
from pathlib import Path

from chipperf.cli import main, repeat, suite

repeat.TRAIN_COMMAND = suite.TRAIN_COMMAND = (  # type: ignore[misc]
    sys.executable,
    str(Path(__file__).with_name("fake_train.py")),
)
main.main()
