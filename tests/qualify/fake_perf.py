"""A fake in place of ``perf``: it notes its arguments, and does what ``behavior.json`` says for its first one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

place = Path(os.environ["FAKE_PERF"])
arguments = sys.argv[1:]
with (place / "calls.txt").open("a") as calls:
    print(*arguments, file=calls)
action = json.loads((place / "behavior.json").read_text()).get(arguments[0])
if action == "fail":
    print("perf: error: it was told to")
    sys.exit(4)
if action in ("hang", "finish when told to end"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143 if action == "hang" else 0))
    (place / "hanging").touch()
    time.sleep(60)
