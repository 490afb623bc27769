"""Training throughput of ``perf train`` on the CPU reference against a plain loop like torchvision's reference.

Both train the same model in fp32 on the same JPEG files in processes of their own, in turn, round after round. ResNet50
takes minutes longer, with ``--cases mobilenetv2 resnet50``. The plain loop uses torchvision's v1 transforms on PIL
images, the default allocator and the default memory layout.

Run: python benchmarks/training_throughput.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from side_by_side import Line, benchmark_parser, compared, in_turn, parse, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CASES = {"mobilenetv2": "mobilenet_v2", "resnet50": "resnet50"}
"""Torchvision's name of each case's model."""

WARMUP_STEPS = 3
LOADER_WORKERS = 1


def plain_loop(model_name: str, batch_size: int, data: Path, steps: int) -> float:
    """Train as torchvision's ``references/classification`` does and return images per second after warm-up."""
    import torch
    import torchvision
    from torchvision import transforms

    preset = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(data / "train"), preset)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=LOADER_WORKERS
    )
    model = torchvision.models.get_model(model_name, weights=None, num_classes=len(dataset.classes)).train()
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    start_s = 0.0
    for step, (images, labels) in enumerate(loader):
        if step == WARMUP_STEPS:
            start_s = time.perf_counter()
        if step == WARMUP_STEPS + steps:
            break
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    else:
        sys.exit(f"the dataset is too small for {WARMUP_STEPS + steps} steps of {batch_size} images")
    return steps * batch_size / (time.perf_counter() - start_s)


def run_plain_loop(case: str, batch_size: int, data: Path, steps: int) -> float:
    """Run :func:`plain_loop` in a fresh process."""
    command = [sys.executable, __file__, "--plain", CASES[case], str(batch_size), str(data), str(steps)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_perf_train(case: str, batch_size: int, data: Path, steps: int) -> float:
    """Run ``perf train`` in a fresh process and return the record's ``p_train``."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        settings = {
            "batch_size": batch_size,
            "lr": 0.01,
            "deterministic": False,
            "workers": LOADER_WORKERS,
            "measure_warmup_steps": WARMUP_STEPS,
            "measure_window_steps": max(1, steps // 5),
            "measure_core_steps": 1,
        }
        command = [sys.executable, "-m", "chipperf", "train", case, "--vendor", "cpu"]
        command += ["--data", str(data), "--out", str(run), "--max-steps", str(WARMUP_STEPS + steps)]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    return float(record["metrics"]["p_train"]["mean_of_totals"])


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=10, help="steps that count, at least 5")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["mobilenetv2"])
    parser.add_argument("--plain", nargs=4, help=argparse.SUPPRESS)
    arguments = parse(parser, steps=5, batch_size=2)
    if arguments.plain:
        model_name, batch_size, data, steps = arguments.plain
        print(plain_loop(model_name, int(batch_size), Path(data), int(steps)))
        return

    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    data = ensure_sample_dataset(SampleOptions(classes=10, train_per_class=100, val_per_class=2))
    print_table(lines(arguments.cases, arguments.batch_size, data, arguments.steps, arguments.rounds))


def lines(cases: Sequence[str], batch_size: int, data: Path, steps: int, rounds: int) -> Iterator[Line]:
    for case in cases:
        ways = {"ours": partial(run_perf_train, case, batch_size, data, steps)}
        ways["plain"] = partial(run_plain_loop, case, batch_size, data, steps)
        found = in_turn(ways, rounds)
        what = f"{case}, {batch_size} images, {steps} steps"
        yield compared(what, found["ours"], "plain loop of torchvision", found["plain"], "images/s")


if __name__ == "__main__":
    main()
