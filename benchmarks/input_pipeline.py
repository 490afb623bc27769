"""Compare input pipelines per core: the reference loader, chipperf's with whole and region decoding, and the ceiling.

    python benchmarks/input_pipeline.py [--images 256] [--rounds 7]

All pipelines run in this one process, on one thread, one after the other in every round, and are measured in CPU time;
a ratio is formed within a round, so that a slow phase of the machine hits both of its sides.

The reference does what FlagPerf's ResNet50 case does (``training/benchmarks/resnet50/pytorch/dataloaders``):
torchvision's ImageFolder and v1 transforms on Pillow images, conversion and normalization to float32 before collation.
For the others, normalization of the collated batch is part of the measured time as well.

Region decoding needs libjpeg-turbo 3 as a shared library; benchmarks/build_libturbojpeg.sh builds one where the
distribution has none, and PERF_LIBTURBOJPEG names it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplejpeg
import torch
from chipperf.data.imagefolder import Split, read_split
from chipperf.data.loader import build_training_loader
from chipperf.data.sample import SampleOptions, render
from chipperf.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize, random_resized_crop_box
from chipperf.data.turbojpeg import LIBRARY_VARIABLE, load_turbojpeg
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH_SIZE = 32
REFERENCE = "reference (torchvision v1, Pillow)"


def main() -> None:
    """Generate the images, run the rounds and print images per CPU second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="number of generated images, 500x375 pixels")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which every pipeline runs once")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        write_images(Path(directory), arguments.images)
        split, _ = read_split(Path(directory))
        mean_bytes = sum(os.path.getsize(split.path(index)) for index in range(len(split))) / len(split)
        print(
            f"{len(split)} images of 500x375 pixels, {mean_bytes / 1000:.0f} kB on average; {arguments.rounds} rounds"
        )
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
    regions = load_turbojpeg() is not None
    found = {
        REFERENCE: reference_pipeline(split),
        "chipperf, whole decode": chipperf_pipeline(split, "off"),
        "ceiling: whole decode alone": whole_decode(split),
    }
    if regions:
        library = os.environ.get(LIBRARY_VARIABLE, "")
        found["chipperf, region decode"] = chipperf_pipeline(split, library)
        found["ceiling: region decode alone"] = region_decode(split)
    else:
        print("no libjpeg-turbo 3 found: region decoding is left out")
    return found


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


def chipperf_pipeline(split: Split, library: str) -> Callable[[], None]:
    loader = build_training_loader(split, batch_size=BATCH_SIZE, seed=0)
    normalize = Normalize(torch.device("cpu"))

    def run() -> None:
        with turbojpeg_library(library):
            consume(normalize(images) for images, _ in loader)

    return run


def whole_decode(split: Split) -> Callable[[], None]:
    contents = read_files(split)

    def run() -> None:
        for data in contents:
            simplejpeg.decode_jpeg(data)

    return run


def region_decode(split: Split) -> Callable[[], None]:
    contents = read_files(split)
    turbojpeg = load_turbojpeg()
    if turbojpeg is None:
        raise RuntimeError("region decoding needs libjpeg-turbo 3")
    boxes = [
        random_resized_crop_box(*turbojpeg.read_size(data), random.Random(number))
        for number, data in enumerate(contents)
    ]

    def run() -> None:
        for data, box in zip(contents, boxes, strict=True):
            turbojpeg.decode_region(data, box)

    return run


def read_files(split: Split) -> list[bytes]:
    return [Path(split.path(index)).read_bytes() for index in range(len(split) // BATCH_SIZE * BATCH_SIZE)]


@contextmanager
def turbojpeg_library(name: str) -> Iterator[None]:
    """Let the decoder use the shared library ``name`` inside the block."""
    before = os.environ.get(LIBRARY_VARIABLE, "")
    os.environ[LIBRARY_VARIABLE] = name
    load_turbojpeg.cache_clear()
    try:
        yield
    finally:
        os.environ[LIBRARY_VARIABLE] = before
        load_turbojpeg.cache_clear()


def consume(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def measure(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every function in every round, after one round that is not counted."""
    cpu_s: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start_s = time.process_time()
            function()
            if number > 0:
                cpu_s[name].append(time.process_time() - start_s)
    return cpu_s


def report(cpu_s: dict[str, list[float]], images: int) -> None:
    print(f"{'':36}{'images / CPU s':>16}   ratio to the reference: median [min-max]")
    for name, seconds in cpu_s.items():
        ratios = [reference / own for reference, own in zip(cpu_s[REFERENCE], seconds, strict=True)]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
        print(f"{name:36}{images / statistics.median(seconds):16.0f}   {spread}")


if __name__ == "__main__":
    main()
