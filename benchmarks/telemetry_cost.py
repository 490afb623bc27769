"""Cost of telemetry: time of the same training steps with the sampling process beside them and without.

The steps run in one process on device-resident batches; the sampling process is started and stopped around every other
round. The process restarts itself with the environment the CPU reference asks for.

Run: python benchmarks/telemetry_cost.py --rounds 12
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from side_by_side import benchmark_parser, compare, parse, print_table
from training_fixture import apply_environment, build_training

WARM_UP_STEPS = 2


def main() -> None:
    parser = benchmark_parser(__doc__, rounds=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parse(parser, batch_size=2, steps=2)
    steps: int = arguments.steps
    apply_environment()

    from chipperf.run.telemetry_process import TelemetrySampler
    from chipperf.train.core_pass import core_window

    context, replica, batches = build_training(arguments.batch_size)
    path = Path(tempfile.mkdtemp()) / "telemetry.jsonl"
    sampler = TelemetrySampler(context.session, path, [context.session.device_info(context.device)], {})

    def seconds(*, sampled: bool) -> float:
        with sampler if sampled else nullcontext():
            # The sampling process's start is paid once a run; what is timed is its work.
            core_window(context, replica, batches, 0, WARM_UP_STEPS)
            window = core_window(context, replica, batches, 0, steps)
        return window.nanoseconds / 1e9 / steps

    sampled, alone = (partial(seconds, sampled=each) for each in (True, False))
    what = f"step of MobileNetV2, {arguments.batch_size} images, with telemetry"
    print_table([compare(what, sampled, "without", alone, arguments.rounds)])
    print(f"{len(path.read_text(encoding='utf-8').splitlines())} readings.")


if __name__ == "__main__":
    main()
