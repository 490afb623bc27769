"""FAKE: shows the Kunlunxin plugin a fake machine instead of this one."""

import os
from pathlib import Path

from chipperf_kunlunxin import probe

probe.MACHINE_ROOT = Path(os.environ["FAKE_MACHINE_ROOT"])
