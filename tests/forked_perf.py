"""Running ``perf`` in forks of a process that has imported it: dozens of commands, and each would take a second to."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

from chipperf.contract.isolation import ForkServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TIMEOUT_S = 300


class ForkedPerf:
    """A process to fork commands from, in which none of them leaves anything.

    Args:
        environment: Environment of the commands.
        directory: Where they are run.
    """

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self._server = ForkServer(environment, ("chipperf.cli.main",))
        self._directory = directory

    def run(self, line: str) -> CompletedProcess[str]:
        """Run a line of ``perf`` commands, joined by ``&&``, up to the first that fails; ``*`` is a file pattern."""
        stdout = stderr = ""
        code = 0
        for command in line.split(" && "):
            program, *words = shlex.split(command)
            assert program == "perf", command
            ended = self.call(*(argument for word in words for argument in self._expanded(word)))
            code = ended["code"]
            stdout += ended["stdout"]
            stderr += ended["stderr"]
            if code:
                break
        return CompletedProcess(line, code, stdout, stderr)

    def call(self, *arguments: str) -> dict[str, Any]:
        """Run one command; return its ``code``, ``stdout`` and ``stderr``, and the ``modules`` it has imported."""
        request = {"arguments": arguments, "directory": str(self._directory)}
        outcome = self._server.call(f"{__name__}:carry_out", request, timeout_s=TIMEOUT_S)
        assert outcome.fault is None, f"{arguments}: {outcome.fault}\n{outcome.output}"
        return {**outcome.value, "stderr": outcome.value["stderr"] + outcome.output}

    def close(self) -> None:
        """End the process."""
        self._server.close()

    def _expanded(self, word: str) -> list[str]:
        found = (
            sorted(str(path.relative_to(self._directory)) for path in self._directory.glob(word)) if "*" in word else []
        )
        return found or [word]


def carry_out(request: Mapping[str, Any]) -> dict[str, Any]:
    """Be the program ``perf``, in a process of its own."""
    from chipperf.cli.main import main

    os.chdir(request["directory"])
    sys.argv = ["perf", *request["arguments"]]
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        try:
            main()
        except SystemExit as end:
            code = end.code
    return {
        "code": code or 0,
        "stdout": stdout.getvalue(),
        "stderr": stderr.getvalue(),
        "modules": sorted(sys.modules),
    }
