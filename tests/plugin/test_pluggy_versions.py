"""Core works with the oldest pluggy it declares; the rest of the suite runs with the installed one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ("test_session.py", "test_hooks.py", "test_observers.py", "test_hook_docs.py", "test_plugin_guide.py")

FORKED = (
    "test_hooks.py::test_mistake_in_a_later_hook_ends_the_run_before_its_first_step",
    "test_observers.py::test_run_that_finished_has_finished_whatever_its_observer_does",
    "test_plugin_guide.py::test_the_package_passes_level_0_of_the_contract",
)
"""Their runs are forked from a process that has imported the installed pluggy, whatever the path says."""

RUN = """
import sys
import pluggy
import pytest
assert pluggy.__version__.startswith(sys.argv[1] + "."), pluggy.__version__
sys.exit(pytest.main(sys.argv[2:]))
"""


@pytest.mark.slow  # Downloads pluggy and runs the hook tests once more.
def test_oldest_declared_pluggy(tmp_path):
    oldest = re.search(r'"pluggy>=([\d.]+)', (ROOT / "core" / "pyproject.toml").read_text(encoding="utf-8"))[1]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path]
    installed = subprocess.run([*install, f"pluggy=={oldest}.*"], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr

    tests = [str(Path(__file__).with_name(name)) for name in TESTS]
    left_out = [f"--deselect={Path(__file__).parent.relative_to(ROOT)}/{name}" for name in FORKED]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    completed = subprocess.run(
        [sys.executable, "-c", RUN, oldest, "-q", "-p", "no:cacheprovider", *left_out, *tests],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert re.search(r"\d+ passed", completed.stdout)
