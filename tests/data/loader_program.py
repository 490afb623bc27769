"""Loads batches in processes, in a machine that lacks something, and prints what went wrong as JSON.

Arguments: what is missing, and the directory of a dataset.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from chipperf.data.imagefolder import scan_imagefolder
from chipperf.data.loader import (
    EvaluationSampler,
    ImageFolderDataset,
    ImageLoader,
    LoaderChoices,
    build_training_loader,
)
from chipperf.data.transforms import EvaluationTransform
from chipperf.run.failure import describe

CLONE_NEWNS = 0x20000
OPTIONS = LoaderChoices(workers=1, prefetch_factor=2, start_method="fork")


def limit_shared_memory(size: str) -> None:
    """Give this process a /dev/shm of its own."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS):
        sys.exit(77)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"], check=True)


def load(missing: str, root: Path) -> None:
    split = scan_imagefolder(root).train
    if missing == "room for a queue":
        limit_shared_memory("4k")
    elif missing.startswith("room"):
        limit_shared_memory("300k")
    elif missing == "short path":
        tempfile.tempdir = str(root / ("a" * 80))
        Path(tempfile.tempdir).mkdir()
    if missing == "room for what is queued":
        dataset = ImageFolderDataset(split, EvaluationTransform(32, 32))
        sampler = EvaluationSampler(len(split))
        loader = ImageLoader(dataset, lambda samples: torch.ones(10**6), OPTIONS, decoder="", sampler=sampler)
    elif missing == "sense":
        dataset = ImageFolderDataset(split, EvaluationTransform(32, 32))
        sampler = EvaluationSampler(len(split))
        loader = ImageLoader(dataset, lambda samples: 1 // 0, OPTIONS, decoder="", sampler=sampler)
    else:
        loader = build_training_loader(split, batch_size=4, seed=3, image_size=224, options=OPTIONS)
    for _ in loader:
        if missing == "process":
            os.kill(loader._loader._iterator._workers[0].pid, signal.SIGKILL)
            time.sleep(60)


try:
    load(sys.argv[1], Path(sys.argv[2]))
except Exception as error:
    print(describe(error, 0).model_dump_json())
else:
    print(json.dumps(None))
