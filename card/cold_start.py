"""Time a vendor's first two probes in this process, the first of which loads the management library.

Run: python card/cold_start.py NAME
"""

import sys
import time

from chipperf.plugin.installed import find_vendor
from chipperf.plugin.session import bind

session = bind(find_vendor(sys.argv[1]), purpose="inspect")
moments = [time.perf_counter()]
for _ in range(2):
    found = session.probe()
    moments.append(time.perf_counter())
print(f"first probe {moments[1] - moments[0]:.3f} s, second {moments[2] - moments[1]:.3f} s: {found.reason}")
sys.exit(not found.available)
