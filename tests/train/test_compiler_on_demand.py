"""A rank that compiles nothing imports no compiler; whatever needs the compiler finds it as torch has it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import execute_perf, perf_environment

if TYPE_CHECKING:
    from pathlib import Path

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
assert "sympy" not in sys.modules
"""

AS_IT_IS = """
assert "sympy" in sys.modules
import torch._dynamo.utils
assert torch._dynamo is sys.modules["torch._dynamo"] and type(torch._dynamo) is type(torch)
assert torch._dynamo.utils is sys.modules["torch._dynamo.utils"]
assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer"
assert roi_align.is_compile_supported is torch._dynamo.utils.is_compile_supported
assert not hasattr(zero_grad, "__dynamo_disable") or zero_grad.__dynamo_disable is not zero_grad
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("chipperf")]
"""

USES = {
    "compiled step": "torch.compile(train, backend='eager')(); assert zero_grad.__dynamo_disable is not zero_grad",
    "setting": "import torch._dynamo.config as it; it.verbose = True; assert torch._dynamo.config.verbose",
    "function of torchvision": "assert roi_align.is_compile_supported('cpu') is not None",
    "function that somebody wants not to be compiled": "assert torch.compiler.disable(train).__wrapped__ is train",
}


def test_ranks_on_a_cpu_import_no_compiler(image_folder: Path, tmp_path: Path) -> None:
    finished = execute_perf(
        *("train", "mobilenetv2", "--vendor", "cpu", "--preset", "tiny", "--max-steps", 1, "--nproc", 2),
        *("--data", image_folder, "--out", tmp_path / "run"),
        PYTHONPROFILEIMPORTTIME="1",
    )

    assert finished.returncode == 0, finished.stderr
    for rank in (0, 1):
        of_rank = imports((tmp_path / "run" / "logs" / f"rank{rank}.log").read_text(encoding="utf-8"))
        assert {"torch", "torchvision.ops.roi_align", "chipperf.train.core_pass"} <= of_rank
        assert not {"torch._dynamo", "torch._dynamo.utils", "sympy", "triton"} & of_rank
    of_launcher = imports(finished.stderr)
    assert "chipperf.launch.job" in of_launcher
    assert not {"torch", "numpy", "torchvision"} & of_launcher


def imports(printed: str) -> set[str]:
    """Return the modules that an interpreter told the imports of."""
    lines = (line for line in printed.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


def test_compiler_is_as_torch_has_it_once_it_is_used() -> None:
    # A fork for each use: only the first one finds a compiler that was not imported.
    program = f"""
import os
for use in {list(USES.values())!r}:
    if not os.fork():
        exec(use + {AS_IT_IS!r})
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0, use
"""
    python(TRAINED + program, PYTHONWARNINGS="ignore")


OTHER_NAMES = {"_dynamo/__init__.py": "new = 3", "_dynamo/utils.py": "x = 5", "_dynamo/config.py": "own = 4"}
BROKEN = {"_dynamo/__init__.py": "import not_there", "_dynamo/utils.py": ""}


@pytest.mark.parametrize(
    ("layout", "then"),
    [
        (OTHER_NAMES, "import torch._dynamo; assert torch._dynamo.new == 3; torch._dynamo.new = 4"),
        (OTHER_NAMES, "import torch._dynamo.config as config; assert config.own == 4"),
        (OTHER_NAMES, "from torch._dynamo import config, utils; assert (config.own, utils.x) == (4, 5)"),
        (OTHER_NAMES, "import torch._dynamo.not_there"),
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
