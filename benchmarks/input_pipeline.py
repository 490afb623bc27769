"""Images per second of processor time of input pipelines, as a share of what decoding alone reaches.

All pipelines load the same images in turn, and what all their processes take of the processor counts, on whatever else
the machine has to do. A share is formed within a round, so that a slow phase of the machine hits both of its sides.

The limit decodes whole files that lie in memory, and does nothing else. The reference does what FlagPerf's ResNet50
case does (``training/benchmarks/resnet50/pytorch/dataloaders``): torchvision's ImageFolder and v1 transforms on Pillow
images, conversion and normalization to float32 before collation. chipperf normalizes the collated batch, which on a
CPU is part of the measured time as well. All have the allocator's settings of a rank on a CPU.

Run: python benchmarks/input_pipeline.py --images 256 --rounds 9
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import simplejpeg
import torch
from chipperf.data.imagefolder import Split, read_split
from chipperf.data.loader import LoaderChoices, build_training_loader
from chipperf.data.sample import SampleOptions, render
from chipperf.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from side_by_side import Line, benchmark_parser, compared, in_turn, parse, print_table
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from training_fixture import apply_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH_SIZE = 32
LIMIT = "decoding alone"
PEER = "torchvision v1, Pillow"
WORKERS = (0, 1, 2)


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=9)
    parser.add_argument("--images", type=int, default=256, help="number of generated images, 500x375 pixels")
    arguments = parse(parser, images=BATCH_SIZE)
    apply_environment()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        write_images(Path(directory), arguments.images)
        split, _ = read_split(Path(directory))
        print_table(lines(split, arguments.rounds))


def lines(split: Split, rounds: int) -> Iterator[Line]:
    """Measure all pipelines in turn, and compare them with the limit, and chipperf's with the peer."""
    mean_bytes = sum(os.path.getsize(split.path(index)) for index in range(len(split))) / len(split)
    images = len(split) // BATCH_SIZE * BATCH_SIZE
    measured = {name: partial(rate, function, images) for name, function in pipelines(split).items()}
    in_turn(measured, min(1, rounds - 1))
    found = in_turn(measured, rounds)
    for name in sorted(found.keys() - {LIMIT, PEER}):
        what = f"{name}, files of {mean_bytes / 1000:.0f} kB"
        for other in (LIMIT, PEER):
            yield compared(what, found[name], other, found[other], "images/CPU s")


def rate(function: Callable[[], None], images: int) -> float:
    """Return images per second of processor time."""
    start_s = used_s()
    function()
    return images / (used_s() - start_s)


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
        PEER: reference_pipeline(split),
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


def used_s() -> float:
    """Return the processor time of this process and its workers."""
    this = psutil.Process()
    # Linux' number of another process's clock, see clock_getcpuclockid(3); psutil counts in hundredths of a second.
    return sum(time.clock_gettime(~process.pid << 3 | 2) for process in (this, *this.children()))


if __name__ == "__main__":
    main()
