"""A rank that compiles nothing imports no compiler; whatever needs the compiler finds it as torch has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import perf_environment
from torch.nn.parallel import distributed

if TYPE_CHECKING:
    from support import FinishedRun

TRAINED = """
import sys
import torch
from chipperf.train.compiler_on_demand import defer_compiler
defer_compiler()
import torchvision
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
zero_grad = torch.optim.Optimizer.zero_grad.__wrapped__

def train():
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()

train()
roi_align = sys.modules["torchvision.ops.roi_align"]
assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer"
assert "torch._dynamo.eval_frame" not in sys.modules
"""

AS_IT_IS = """
assert "torch._dynamo.eval_frame" in sys.modules
import torch._dynamo.utils
assert torch._dynamo is sys.modules["torch._dynamo"] and type(torch._dynamo) is type(torch)
assert torch._dynamo.utils is sys.modules["torch._dynamo.utils"]
# Older versions do not have it.
assert getattr(torch._dynamo.utils, "get_optimize_ddp_mode", lambda: "ddp_optimizer")() == "ddp_optimizer"
assert roi_align.is_compile_supported is torch._dynamo.utils.is_compile_supported
assert not hasattr(zero_grad, "__dynamo_disable") or zero_grad.__dynamo_disable is not zero_grad
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("chipperf")]
"""

USES = (
    "torch.compile(train, backend='eager')(); assert zero_grad.__dynamo_disable is not zero_grad",
    "assert torch.compiler.disable(train).__wrapped__ is train",
)


def test_ranks_on_a_cpu_import_no_compiler_and_their_launcher_no_torch(trained_run: FinishedRun) -> None:
    of_launcher = imports(trained_run.process.stderr)
    assert "chipperf.launch.job" in of_launcher
    assert not {"torch", "numpy", "torchvision"}.intersection(of_launcher)

    if "get_optimize_ddp_mode" not in Path(distributed.__file__).read_text(encoding="utf-8"):
        pytest.skip("the gradient exchange of this version of torch asks its compiler for more")
    for rank in (0, 1):
        of_rank = imports((trained_run.directory / "logs" / f"rank{rank}.log").read_text(encoding="utf-8"))
        assert {"torch", "torchvision.ops.roi_align", "chipperf.train.core_pass"} <= set(of_rank)
        assert [name for name in of_rank if name.startswith("torch._dynamo")] == []
        # Older versions of torch import it with torchvision.
        assert "sympy" not in of_rank[of_rank.index("torchvision") :]


def imports(printed: str) -> list[str]:
    """Return the modules that an interpreter told the imports of, each after those that it imports."""
    lines = (line for line in printed.splitlines() if line.startswith("import time:"))
    return [line.rpartition("|")[2].strip() for line in lines]


def test_compiler_is_as_torch_has_it_once_it_is_used() -> None:
    # A fork for each use: only the first one finds a compiler that was not imported.
    program = f"""
import os
for use in {USES!r}:
    if not os.fork():
        exec(use + {AS_IT_IS!r})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, use
"""
    python(TRAINED + program, PYTHONWARNINGS="ignore")


UTILS = """
x = 5
def is_compile_supported(device_type):
    return device_type == "cpu"
"""
OTHER_NAMES = {"_dynamo/__init__.py": "new = 3", "_dynamo/utils.py": UTILS, "_dynamo/config.py": "own = 4"}
BROKEN = {"_dynamo/__init__.py": "import not_there", "_dynamo/utils.py": ""}


@pytest.mark.parametrize(
    ("layout", "then"),
    [
        (OTHER_NAMES, "import torch._dynamo; assert torch._dynamo.new == 3; torch._dynamo.new = 4"),
        (OTHER_NAMES, "import torch._dynamo.config as config; assert config.own == 4"),
        (OTHER_NAMES, "from torch._dynamo import config, utils; assert (config.own, utils.x) == (4, 5)"),
        (OTHER_NAMES, "import torch._dynamo.not_there"),
        (OTHER_NAMES, "from torch._dynamo.utils import is_compile_supported as its; assert its('cpu') and not its('')"),
        ({"_dynamo/__init__.py": "new = 3"}, "from torch._dynamo import utils"),
        ({}, "import torch._dynamo"),
        (BROKEN, "from torch._dynamo import anything"),
        (BROKEN, "import torch._dynamo.config"),
    ],
)
def test_another_torch_is_imported_as_without_deferring(tmp_path: Path, layout: dict[str, str], then: str) -> None:
    for name, text in {"__init__.py": "", **layout}.items():
        (tmp_path / "torch" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "torch" / name).write_text(text, encoding="utf-8")
    program = f"""
import sys
if sys.argv[1:]:
    from chipperf.train.compiler_on_demand import defer_compiler
    defer_compiler()
for _ in range(2):
    try:
        {then}
        print("imported", sorted(name for name in sys.modules if name.startswith("torch.")))
    except Exception as error:
        print(type(error), error)
"""
    plain, deferred = (python(program, *arguments, PYTHONPATH=str(tmp_path)) for arguments in ([], ["deferred"]))

    assert deferred == plain
    assert plain


def python(program: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    finished = subprocess.run(command, env=perf_environment(**environment), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
