"""Which rules fire on each of the three seed documents, and where."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from reports import brief, run

SEEDS = Path(__file__).parents[1] / "report" / "seeds"

# Beside each document lie its configurations and the benchmark's page, as FlagPerf has them.
CONFIGS = {
    "kunlunxin-detr": {
        "config_common.py": 'vendor = "kunlunxin"\ndist_backend = "xccl"\n',
        "config_R300x1x1.py": "train_batch_size = 8\neval_batch_size = 8\n",
        "config_R300x1x8.py": "train_batch_size = 8\neval_batch_size = 8\n",
        "config_R300x2x8.py": "train_batch_size = 4\neval_batch_size = 4\n",
        "environment_variables.sh": "export XACC=1\nexport BKCL_PCIE_RING=1\n",
    },
    "kunlunxin-mobilenetv2": {
        "config_common.py": 'vendor = "kunlunxin"\ndist_backend = "xccl"\nfp16 = False\n',
        "config_R300x1x1.py": "train_batch_size = 256\neval_batch_size = 128\nlr = 0.1\nlr_decay_ratio = 0.1\n",
        "config_R300x1x8.py": "train_batch_size = 256\neval_batch_size = 256\nlr = 0.045 * 8\n",
        "config_R300x2x8.py": "train_batch_size = 256\neval_batch_size = 256\nlr = 0.045 * 16\n",
    },
    "metax-resnet50": {
        "config_C500x1x1.py": "lr = 0.8\ntrain_batch_size = 256\neval_batch_size = 256\nmax_epoch = 6\n",
        "config_C500x1x8.py": "lr = 0.4\ntrain_batch_size = 128\neval_batch_size = 128\n",
        "config_C500x2x8.py": "lr = 0.8\ntrain_batch_size = 256\neval_batch_size = 256\n",
        "environment_variables.sh": "export METAX_USE_TF32=1\n",
    },
}
ALONE = {
    "kunlunxin-detr": [
        "L04 45:49",
        *("L04 45:60", "L04 45:70", "L04 45:80", "L04 45:89"),
        *("L04 46:48", "L04 46:59", "L04 46:69", "L04 46:79"),
        "L06 47:3",
        *("L04 47:60", "L04 47:70", "L04 47:80"),
        *("L21 50:1", "L23 51:8"),
    ],
    "kunlunxin-mobilenetv2": [
        *("L04 45:59", "L04 45:69", "L04 45:79"),
        *("L04 46:49", "L04 46:60", "L04 46:70", "L04 46:80"),
        "L12 46:89",
        "L06 47:3",
        *("L04 47:60", "L04 47:70", "L04 47:80"),
    ],
    "metax-resnet50": [
        "L01 29:14",
        *("L04 42:50", "L04 42:62", "L04 42:72", "L04 42:82"),
        *("L04 43:62", "L04 43:72", "L04 43:82", "L04 43:91"),
        "L06 44:3",
        *("L04 44:62", "L04 44:73", "L04 44:83", "L04 44:92"),
        "L16 44:100",
        *("L04 45:50", "L04 45:61", "L04 45:72", "L04 45:82", "L04 45:91"),
    ],
}
"""Findings of each document by itself."""

WITH_EVIDENCE = {
    "kunlunxin-detr": ["L07 47:32", "L23 2:13"],
    "kunlunxin-mobilenetv2": ["L07 45:31", "L29 43:3"],
    "metax-resnet50": [
        "L09 36:15",
        *("L14 42:22", "L07 42:34"),
        "L07 43:33",
        "L07 44:34",
        *("L08 45:22", "L07 45:34"),
    ],
}
"""What is found beyond that together with the configurations and the benchmarks' pages."""


@pytest.fixture
def tree(tmp_path):
    """Return the seeds where FlagPerf has them, by their names."""
    paths = {}
    for name, configs in CONFIGS.items():
        vendor, _, case = name.partition("-")
        directory = tmp_path / "training" / vendor / f"{case}-pytorch"
        (directory / "config").mkdir(parents=True)
        paths[name] = directory / "README.md"
        shutil.copy(SEEDS / f"{name}.md", paths[name])
        for file, content in configs.items():
            (directory / "config" / file).write_text(content, encoding="utf-8")
        benchmark = tmp_path / "training" / "benchmarks" / case
        benchmark.mkdir(parents=True)
        heading = "### 数据集下载地址" if case == "detr" else "### 数据集"
        (benchmark / "README.md").write_text(f"{heading}\n", encoding="utf-8")
    return paths


@pytest.mark.parametrize("name", ALONE)
def test_findings_of_a_seed_alone(name, tmp_path):
    # Links are followed where they lead to a directory that is there, as from the tests' own directory.
    document = shutil.copy(SEEDS / f"{name}.md", tmp_path)

    assert brief(run(Path(document)).findings) == ALONE[name]


@pytest.mark.parametrize("name", ALONE)
def test_findings_of_a_seed_with_its_evidence(tree, name):
    found = set(brief(run(tree[name]).findings))

    assert found - set(ALONE[name]) == set(WITH_EVIDENCE[name])
    assert set(ALONE[name]) <= found


def test_findings_of_all_seeds_together(tree):
    (root,) = {path.parents[3] for path in tree.values()}

    result = run(root)

    found = {finding for finding in brief(result.findings)}
    assert found == {each for table in (ALONE, WITH_EVIDENCE) for finding in table.values() for each in finding}
    assert len(result.files) == 3
    assert len(result.skipped) == 3


def test_rules_that_are_not_checked_on_a_seed_alone():
    result = run(SEEDS / "metax-resnet50.md")

    assert [each.rule for each in result.unchecked] == [
        *("L07", "L08", "L09", "L10", "L19", "L21", "L27", "L28", "L29", "L31", "L32", "L33", "L34")
    ]
