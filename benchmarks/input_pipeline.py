"""Images per second of processor time of input pipelines, as a share of what decoding alone reaches.

    python benchmarks/input_pipeline.py [--images 256] [--rounds 9]

All pipelines load the same images in turn, and what all their processes take of the processor counts, on whatever else
the machine has to do. A share is formed within a round, so that a slow phase of the machine hits both of its sides.

The limit decodes whole files that lie in memory, and does nothing else. The reference does what FlagPerf's ResNet50
case does (``training/benchmarks/resnet50/pytorch/dataloaders``): torchvision's ImageFolder and v1 transforms on Pillow
images, conversion and normalization to float32 before collation. chipperf normalizes the collated batch, which on a
CPU is part of the measured time as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import simplejpeg
import torch
from chipperf.data.imagefolder import Split, read_split
from chipperf.data.loader import LoaderChoices, build_training_loader
from chipperf.data.sample import SampleOptions, render
from chipperf.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BATCH_SIZE = 32
LIMIT = "decoding alone"
WORKERS = (0, 1, 2)


def main() -> None:
    """Generate the images, run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="number of generated images, 500x375 pixels")
    parser.add_argument("--rounds", type=int, default=9, help="rounds in which every pipeline runs once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        write_images(Path(directory), arguments.images)
        split, _ = read_split(Path(directory))
        mean_bytes = sum(os.path.getsize(split.path(index)) for index in range(len(split))) / len(split)
        print(f"{len(split)} images of 500x375 pixels, {mean_bytes / 1000:.0f} kB on average; median [quartiles]")
        report(measure(pipelines(split), arguments.rounds), images=len(split) // BATCH_SIZE * BATCH_SIZE)


def write_images(directory: Path, count: int) -> None:
    options = SampleOptions()
    for number in range(count):
        label = number % options.classes
        path = directory / f"class{label}" / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = render(options, "benchmark", label, number)
        path.write_bytes(simplejpeg.encode_jpeg(pixels, quality=94, colorsubsampling="420"))


def pipelines(split: Split) -> dict[str, Callable[[], None]]:
    """Return the functions to measure by name; each processes the same number of images."""
    return {
        LIMIT: decoding_alone(split),
        "torchvision v1, Pillow": reference_pipeline(split),
        **{f"chipperf, {workers} workers": chipperf_pipeline(split, workers) for workers in WORKERS},
    }


def decoding_alone(split: Split) -> Callable[[], None]:
    contents = [Path(split.path(index)).read_bytes() for index in range(len(split) // BATCH_SIZE * BATCH_SIZE)]

    def run() -> None:
        for data in contents:
            simplejpeg.decode_jpeg(data)

    return run


def reference_pipeline(split: Split) -> Callable[[], None]:
    steps = [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    dataset = datasets.ImageFolder(str(split.directory), transforms.Compose(steps))
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
    return lambda: consume(loader)


def chipperf_pipeline(split: Split, workers: int) -> Callable[[], None]:
    options = LoaderChoices(workers=workers, start_method="fork")
    loader = build_training_loader(split, batch_size=BATCH_SIZE, seed=0, options=options)
    normalize = Normalize(torch.device("cpu"))
    return lambda: consume(normalize(images) for images, _ in loader)


def consume(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def measure(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every function in every round, after one round that is not counted."""
    cpu_s: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start_s = used_s()
            function()
            if number > 0:
                cpu_s[name].append(used_s() - start_s)
    return cpu_s


def used_s() -> float:
    """Return the processor time of this process and its workers."""
    this = psutil.Process()
    # Linux' number of another process's clock, see clock_getcpuclockid(3); psutil counts in hundredths of a second.
    return sum(time.clock_gettime(~process.pid << 3 | 2) for process in (this, *this.children()))


def report(cpu_s: dict[str, list[float]], images: int) -> None:
    print(f"| {'Pipeline':24} | Images per CPU s | {'Share of the limit':18} | Limit |")
    print("| --- | ---: | ---: | ---: |")
    for name, seconds in cpu_s.items():
        shares = [limit / own for limit, own in zip(cpu_s[LIMIT], seconds, strict=True)]
        low, middle, high = statistics.quantiles(shares, n=4) if len(shares) > 1 else shares * 3
        print(f"| {name:24} | {images / statistics.median(seconds):16.0f} | {middle:.2f} [{low:.2f}–{high:.2f}] | 1 |")


if __name__ == "__main__":
    main()
