"""docs/tutorial.md, followed from its first command to its last, as a reader would, but without the network.

Its commands build on each other and need a place of their own, so its blocks are marked ``sh``: those that are marked
``bash`` are run one by one by test_commands.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import ROOT
from walkthrough import echoed, follow

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```(sh|python|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MODULE = Path("chipperf-acme/src/chipperf_acme/plugin.py")

REPLACE = """\
import re, sys
from pathlib import Path

module = Path(sys.argv[1])
imports, function = Path(sys.argv[2]).read_text().rstrip().split("\\n\\n\\n")
source = module.read_text()
for old, new in [(r"^from chipperf import .*?$", imports), (r"^@hookimpl\\ndef perf_probe.*?\\n    [)]$", function)]:
    source, count = re.subn(old, lambda _: new, source, count=1, flags=re.M | re.S)
    assert count == 1, old
module.write_text(source)
"""
"""What the reader does in an editor."""


def script(directory: Path) -> str:
    """Return one shell script of all steps; every command is echoed before its output."""
    (directory / "replace.py").write_text(REPLACE, encoding="utf-8")
    lines = ["set -e"]
    for number, (language, code) in enumerate(STEPS):
        if language == "sh":
            lines += echoed(code)
        elif language == "python":
            (directory / f"{number}.py").write_text(code, encoding="utf-8")
            lines.append(f"python {directory}/replace.py {MODULE} {directory}/{number}.py")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """What each command printed; every one has succeeded."""
    settings = tmp_path_factory.mktemp("settings")
    directory = tmp_path_factory.mktemp("tutorial")
    (directory / "chipperf").symlink_to(ROOT)
    return follow(script(settings), directory, settings)


pytestmark = pytest.mark.slow  # Makes an environment, builds two wheels and runs level 0 four times.


def test_every_command_succeeds(tutorial):
    commands = [command for language, code in STEPS if language == "sh" for command in code.splitlines()]

    assert list(tutorial) == list(dict.fromkeys(commands))
    assert len(commands) > 8


def test_plugin_is_listed(tutorial):
    assert re.search(r"^acme +vendors +chipperf-acme 0\.1\.0", tutorial["perf plugins"], re.MULTILINE)


def test_level_0_is_green_and_ends_as_shown(tutorial):
    (shown,) = (code for language, code in STEPS if language == "text")
    printed = tutorial["perf contract run --vendor acme --level 0"].splitlines()[-1]

    assert re.sub(r"\d+/\d+", "N/N", f"{printed}\n") == re.sub(r"\d+/\d+", "N/N", shown)
    passed, applicable = re.search(r"(\d+)/(\d+)", printed).groups()
    assert passed == applicable


def test_new_probe_gives_its_reason(tutorial):
    assert "no /dev/acme*: load the kernel module with 'modprobe acme'" in tutorial["perf doctor"]


def test_its_own_tests_pass(tutorial):
    assert "1 passed" in tutorial["python -m pytest chipperf-acme"]
