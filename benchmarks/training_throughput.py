"""Training throughput of ``perf train`` on the CPU reference against a plain loop like torchvision's reference.

Both train the same model on the same JPEG files in processes of their own, in turn, round after round; printed are
the ratios of their throughputs. The plain loop uses torchvision's v1 transforms on PIL images, the default allocator
and the default memory layout.

Run: python benchmarks/training_throughput.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {"mobilenetv2": ("mobilenet_v2", 32), "resnet50": ("resnet50", 16)}
"""Torchvision's name of each case's model, and the batch size of both loops."""

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


def run_plain_loop(case: str, data: Path, steps: int) -> float:
    """Run :func:`plain_loop` in a fresh process."""
    model_name, batch_size = CASES[case]
    command = [sys.executable, __file__, "--plain", model_name, str(batch_size), str(data), str(steps)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_perf_train(case: str, data: Path, steps: int, precision: str) -> float:
    """Run ``perf train`` in a fresh process and return the record's ``p_train``."""
    _, batch_size = CASES[case]
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
        command = [sys.executable, "-m", "chipperf", "train", case, "--vendor", "cpu", "--precision", precision]
        command += ["--data", str(data), "--out", str(run), "--max-steps", str(WARMUP_STEPS + steps)]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    return float(record["metrics"]["p_train"]["mean_of_totals"])


def has_bf16_instructions() -> bool:
    """Return True if the processor multiplies bf16; without, torch emulates it and is many times slower."""
    return any(flag in Path("/proc/cpuinfo").read_text(encoding="utf-8") for flag in ("avx512_bf16", "amx_bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--plain", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        model_name, batch_size, data, steps = arguments.plain
        print(plain_loop(model_name, int(batch_size), Path(data), int(steps)))
        return

    from chipperf.data.sample import SampleOptions, ensure_sample_dataset

    data = ensure_sample_dataset(SampleOptions(classes=10, train_per_class=100, val_per_class=2))
    precisions = ["fp32"]
    if has_bf16_instructions():
        precisions.append("bf16")
    else:
        print("bf16: not measured, this processor has no bf16 instructions")
    for case in arguments.cases:
        ratios: dict[str, list[float]] = {precision: [] for precision in precisions}
        rates: dict[str, list[float]] = {name: [] for name in ("plain", *precisions)}
        for _ in range(arguments.rounds):
            plain = run_plain_loop(case, data, arguments.steps)
            rates["plain"].append(plain)
            for precision in precisions:
                ours = run_perf_train(case, data, arguments.steps, precision)
                rates[precision].append(ours)
                ratios[precision].append(ours / plain)
        for precision, values in ratios.items():
            spread = f"{statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"
            ours, plain = statistics.median(rates[precision]), statistics.median(rates["plain"])
            print(f"{case} {precision}: {spread} times the plain loop ({ours:.1f} against {plain:.1f} images/s)")


if __name__ == "__main__":
    main()
