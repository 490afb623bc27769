"""One browser for all tests of pages, and a site to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import headless
import pytest
from chipperf.verify.evidence import Examination
from chipperf.web import board
from chipperf.web.site_files import build_site
from web_records import EXAMPLES, failed, make_run, write_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chipperf.web.site_files import Site

EVIL = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


@pytest.fixture(autouse=True)
def every_record_is_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the checks of records, which tests edit to be about one thing; ``test_implausible.py`` and
    ``test_evidence_of_runs.py`` have them.
    """
    monkeypatch.setattr(board, "examine_evidence", lambda record, directory: Examination())
    monkeypatch.setattr(board, "check_with_case", lambda record, case: ())
    monkeypatch.setattr(board, "missing_settings", lambda record, case: None)


@pytest.fixture(scope="session")
def page() -> Iterator[headless.Page]:
    """A page in a browser without a window; the test is skipped where there is none."""
    reason = headless.why_not()
    if reason:
        pytest.skip(reason)
    browser = headless.start()
    yield headless.Page(browser)
    browser.quit()


@pytest.fixture(scope="session")
def example_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Simulated runs of two cases, and with names that try to run a script; one record is broken."""
    directory = tmp_path_factory.mktemp("site")
    evil = make_run(
        run_id=EVIL,
        environment__row_label=EVIL,
        vendor__name=EVIL,
        hyperparameters__values={EVIL: EVIL},
        warnings=[EVIL],
    )
    runs = write_runs(directory / "runs", [*EXAMPLES, evil, failed(run_id="broken", case__name="detr")])
    (runs / "broken").mkdir()
    (runs / "broken" / "record.json").write_text(EVIL, encoding="utf-8")
    return build_site(runs, directory / "site", language="zh")


@pytest.fixture
def leaderboard(example_site: Site) -> Path:
    """The page that lists all runs."""
    return example_site.index


@pytest.fixture
def run_page(example_site: Site) -> Path:
    """The page of one simulated run."""
    return next((example_site.index.parent / "runs").glob("simulated-resnet50-acme-1x8-fp32-*.html"))
