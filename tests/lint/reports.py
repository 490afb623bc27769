"""Case documents in FlagPerf's directories, and their lint."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chipperf.documents.card_names import read_card_names
from chipperf.lint.lint_run import lint
from chipperf.lint.rule import choose_rules

if TYPE_CHECKING:
    from chipperf.lint.lint_run import Finding, Result

ROOT = Path(__file__).parents[2]
_PARTS = runpy.run_path(str(ROOT / "tests" / "importing" / "readmes.py"))
HEADERS, changed, readme, table = (_PARTS[name] for name in ("HEADERS", "changed", "readme", "table"))
_FACTORY = runpy.run_path(str(ROOT / "tests" / "report" / "factory.py"))
make_record, throughput = _FACTORY["make_record"], _FACTORY["throughput"]
NAMES = read_card_names()

NVIDIA_FACTS = {
    "机器型号": "NVIDIA DGX A100",
    "加速卡型号": "NVIDIA A100-SXM4-40GB",
    "训练框架版本": "pytorch-1.13.1",
    "Docker镜像和版本": "24.0.7",
}


def nvidia(*rows: Any, **options: Any) -> str:
    """Return a report of NVIDIA's A100 on resnet50 in which nothing is wrong, with changes."""
    facts = {**NVIDIA_FACTS, **options.pop("facts", {})}
    general = {"硬件设备简称": "A100", **options.pop("general", {})}
    title = options.pop("title", "NVIDIA A100 配置与运行信息参考")
    return readme(*(rows or [good()]), facts=facts, general=general, title=title, **options)


def good(**cells: str) -> tuple[str, ...]:
    """Return a row whose values can be true together: 100 epochs of ImageNet in 28 661 s."""
    return changed(**{"label": "A100单机8卡（1x8）", "fix_hp": "/", "p_whole": "4470", "mem": "19.3/40.0", **cells})


def put(
    root: Path,
    text: str,
    *,
    vendor: str = "nvidia",
    case: str = "resnet50-pytorch",
    configs: dict[str, str] | None = None,
) -> Path:
    """Write a report where FlagPerf has it, with its configurations, and return its path."""
    directory = root / "training" / vendor / case
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "README.md"
    path.write_text(text, encoding="utf-8")
    for name, content in (configs or {}).items():
        file = directory / "config" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return path


def put_benchmark(root: Path, case: str, base: str | None = None, **sources: str) -> None:
    """Write a case's benchmark where FlagPerf has it, with its base configuration and other files by their stem."""
    directory = root / "training" / "benchmarks" / case / "pytorch"
    (directory / "config").mkdir(parents=True)
    if base is not None:
        (directory / "config" / "_base.py").write_text(base, encoding="utf-8")
    for name, content in sources.items():
        (directory / f"{name}.py").write_text(content, encoding="utf-8")


def run(*paths: Path, select: str | tuple[str, ...] = (), **options: Any) -> Result:
    ids = (select,) if isinstance(select, str) else select
    return lint(paths, choose_rules(ids), **{"names": NAMES, **options})


def brief(findings: list[Finding]) -> list[str]:
    """Return findings as ``rule line:column``."""
    return [f"{finding.rule} {finding.place}" for finding in findings]
