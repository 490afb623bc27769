"""Speed of the classifiers in another precision over fp32, which is not always faster: on a CPU, it often is not.

Both models lie in one process and run windows of the same steps on device-resident batches, in turn. On a CPU, seconds
are those of the processor, because machines are shared.

Run: python benchmarks/precisions.py --precision bf16 --rounds 5
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from side_by_side import Line, benchmark_parser, compare, parse, print_table
from training_fixture import apply_environment, build_training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chipperf.precisions import Precision


CPU: Final = "cpu"
FP32: Final = "fp32"


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=5)
    parser.add_argument("--vendor", default=CPU)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cases", nargs="+", default=["mobilenetv2", "resnet50"])
    arguments = parse(parser, batch_size=1, cases=["mobilenetv2"])
    apply_environment(arguments.vendor)
    print_table(lines(arguments.cases, arguments.batch_size, arguments.vendor, arguments.precision, arguments.rounds))


def lines(cases: Sequence[str], batch_size: int, vendor: str, precision: Precision, rounds: int) -> Iterator[Line]:
    for case in cases:
        other, fp32 = (step_rate(batch_size, vendor, case, each) for each in (precision, FP32))
        what = f"{case} in {precision}, {batch_size} images"
        yield compare(what, other, FP32, fp32, rounds, "images/CPU s" if vendor == CPU else "images/s")


def step_rate(batch_size: int, vendor: str, case: str, precision: Precision) -> Callable[[], float]:
    """Return what trains a step and returns images per second, on a CPU of the processor."""
    from chipperf.train.core_pass import core_window

    context, replica, batches = build_training(batch_size, vendor, case, precision)

    def run() -> float:
        start_s = time.process_time()
        window_s = core_window(context, replica, batches, 0, 1).nanoseconds / 1e9
        return batch_size / (time.process_time() - start_s if vendor == CPU else window_s)

    return run


if __name__ == "__main__":
    main()
