"""Takes the pictures of the web pages in docs/screenshots: ``python docs/generate_screenshots.py``.

Needs Chromium and its driver; the runs are the measured example and simulated ones, which the pages say.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from chipperf.web.site_files import build_site
from example_records import write_records

PICTURES = Path(__file__).with_name("screenshots")
PHONE, DESKTOP = (390, 1300), (1360, 1180)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "web"))

import headless  # noqa: E402

if __name__ == "__main__":
    reason = headless.why_not()
    if reason:
        # Part of `make docs`, which has to work where there is no browser.
        print(f"no screenshots: {reason}")
        sys.exit(0)
    browser = headless.start()
    try:
        page = headless.Page(browser)
        PICTURES.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            runs, site = Path(directory) / "runs", Path(directory) / "site"
            write_records(runs)
            index = build_site(runs, site, language="en").index
            report = next((site / "runs").glob("detr-*.html"))
            for name, path, view, size, dark in (
                ("leaderboard-light", index, "lang=en&case=resnet50", DESKTOP, False),
                ("leaderboard-dark", index, "lang=zh&case=resnet50", DESKTOP, True),
                ("leaderboard-phone", index, "lang=zh&case=mobilenetv2", PHONE, False),
                ("report", report, "lang=en", (1360, 1500), False),
            ):
                page.open(path, f"#{view}", size=size, dark=dark)
                page.screenshot(PICTURES / f"{name}.png")
    finally:
        browser.quit()
