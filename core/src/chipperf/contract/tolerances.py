"""The tolerances of all checks, each with its justification. A fraction has no unit in its name.

Those of a training against the CPU reference are in :data:`chipperf.precisions.ARITHMETICS`.
"""

from __future__ import annotations

import math
from typing import Final

FP32_EPSILON: Final = 2.0**-23
"""Distance of one and the next larger number in fp32."""

PROBE_S: Final = 5.0
"""Choosing a vendor waits for every probe; two calls of a management tool take less."""

IDLE_PROBE_S: Final = 1.0
"""Where there is no device and no tool, a probe reads some files, in milliseconds."""

IMPORT_S: Final = 1.0
"""Every command imports every plugin; a module that imports only what it needs takes a hundredth of it."""

LEAST_REASON_WORDS: Final = 5
"""A reason says what the probe looked for and what to do; 'no /dev/x0: load the module' has six words, 'no card' has
two."""

LEAST_OVERRIDE_REASON_WORDS: Final = 3
"""'fills the card' has three words; one or two words only repeat the key."""

LEAST_DEVICE_MEMORY_BYTES: Final = 2.0**26
"""Every card has more than 64 MiB; the number is smaller for any capacity in MiB or GiB."""

LEAST_PEAK_FLOPS_PER_S: Final = 1e9
"""Every accelerator is faster than 1 GFLOP/s; the number is smaller for any rate in GFLOP/s or TFLOP/s."""

PEAK_OF_HALF: Final = 3.0
"""Products of 16 bits run at twice the rate of TF32, and sparse ones at twice the rate of dense ones."""

TOTAL_MEMORY: Final = 0.02
"""A driver may reserve about one percent of a card; GB instead of GiB is wrong by 7 %."""

HOST_MEMORY_BYTES: Final = 2.0**20
"""Host memory reported as a card's has exactly the same size; a card's own capacity differs more."""

ALLOCATION_BYTES: Final = 6 * 2.0**20
"""More than an allocator's rounding, which is to 2 MiB, and the noise of a process's resident memory; less than the
difference of a kB to a KiB in a tensor of 320 MiB."""

RESERVED_BYTES: Final = 24 * 2.0**20
"""An allocator with expandable segments takes memory from the device in pieces of 20 MiB."""

UNUSED_DEVICE_BYTES: Final = 2.0**20
"""A runtime may store a few constants on a card before the first tensor."""

REPEATED_QUERY_BYTES: Final = 4 * 2.0**20
"""The resident memory of a process changes by some pages while it is read; a reset lowers the peak by the 64 MiB of the
freed tensor."""

TRAINING_GROWTH_BYTES: Final = 8 * 2.0**20
"""Over 40 steps of a network with activations of 1 MiB each: one step in five may leak one; the resident memory of a
process changes by less."""

KEPT_HANDLES: Final = 4
"""Threads, open files and processes that a library may start or open late; a leak adds one in each of ten calls or
more."""

HOST_MEMORY_GROWTH_BYTES: Final = 8 * 2.0**20
"""Caches of Python and of the host's allocator grow by less; 0.2 MiB for each of 40 steps or calls is as much."""

REMAINING_WORK: Final = 0.25
"""Fraction of long work that reading the result waits for after perf_synchronize: none, but a busy host may stop the
process for tens of milliseconds; without synchronizing it is most of the work."""

DOUBLED_WORK_LEAST: Final = 1.5
"""Larger products run at a higher rate, and launching takes a constant time."""

DOUBLED_WORK_MOST: Final = 2.6
"""Larger products may fall out of a cache, and a warm card may lower its clock."""

LATE_RETURN: Final = 0.15
"""Fraction of a wait of tenths of a second: it is microseconds too long, but a busy host delays single ones. If each
pause between two looks is twice as long as the last, a quarter of one of two waits comes after the work."""

WINDOW_TIME: Final = 0.02
"""Totals and windows in a report may differ by this fraction."""

IDLE_SYNCHRONIZE_S: Final = 0.02
"""On an idle device it takes microseconds with every stack; a sleep of 20 ms would lengthen a window by 0.1 %."""

OTHER_DEVICE_WAIT: Final = 0.5
"""Fraction of one device's work that synchronizing another device may take; a wait for the first device takes all of
it."""

COLLECTIVE_TIMEOUT_S: Final = (90, 12 * 3600)
"""Ranks wait for minutes while one evaluates or writes a checkpoint; a number of minutes is smaller than that, and a
number of milliseconds larger than half a day."""

ALIKE_DRAWS: Final = 0.75
"""Fraction of draws that may be equal in two series: independent throws of a coin agree in half of them."""

SHARED_DRAWS: Final = 0.1
"""Fraction of the numbers of one seed that may occur with another one: of 4096 numbers with 24 bits, one does by
chance; with a generator that counts on from its seed, nearly all do."""

BUCKET_MIB: Final = (1, 1024)
"""torch's is 25; larger than a GiB, which no gradients of a case fill, is a number of bytes."""

ABSENCE_S: Final = 5.0
"""Time limit of a collective that a rank stays away from: the ranks of a busy host meet within a second."""

ABSENCE_NOTICED_S: Final = 3 * ABSENCE_S
"""gloo notices at the limit; a library may look for collectives that are late only every few seconds."""

ABSENCE_ENDS_PROCESS_S: Final = 90.0
"""Libraries that end the process instead of raising give it a minute to write what it was doing."""

FAILED_RUN_S: Final = 20.0
"""The other ranks notice at once, and the launcher kills those that ignore SIGTERM after 25 s."""

FP32_FUNCTION: Final = 16 * FP32_EPSILON
"""Part of :func:`fp32_operator` without a sum: a function is right to a few units in the last place, and some operators
compute several; on the CPU an operator is off by 6 epsilon at most."""

FP32_SUM: Final = 4 * FP32_EPSILON
"""Part of :func:`fp32_operator` for each root of a term: rounding errors add up as a random walk, at most 0.3 epsilon
times the root on the CPU, which adds several terms at a time; Winograd's algorithm is a few times worse."""

ROUNDED_OPERATOR: Final = 2.0
"""Error of a product, in units of the last bit that its operands keep: they are off by a third of it, the result, if it
is stored so, by another third, and 0.65 was measured for attention. Sums are kept in fp32."""

ROUNDED_LOSS: Final = 1 / 16
"""Error of a loss in units of the last bit of what it sums: torch rounds each of 1024 logarithms to 16 bits, of which a
mean keeps 1/50, and adds them in fp32. If the loss itself is rounded, three of four are off by more than this."""

UPDATE: Final = 32 * FP32_EPSILON
"""Fraction of the norm of weights or momenta after a step from the same numbers: formulas of ten operations, each right
to an epsilon, and the norm of all gradients to clip them by; 5e-8 was measured. Without its weight decay, a step of SGD
differs by 1e-5."""

POWER_W: Final = (0.1, 5_000)
"""Every card uses less than 5 kW, and an idle card more than 5000 mW; 0 would stand for an unknown value, which must
be None."""

TEMPERATURE_C: Final = (1, 130)
"""A card in use is warmer than the room, and shuts down below 130 degrees; in kelvin or tenths of a degree the number
is higher. 0 would stand for an unknown value, which must be None."""

TEMPERATURE_CHANGE_C: Final = 30.0
"""A card warms by less within the seconds that a check loads it; power and utilization change by more."""

CLOCK_MHZ: Final = (10, 10_000)
"""In GHz the number of every card is lower, in kHz or Hz higher."""

TELEMETRY_CALL_S: Final = 0.2
"""The sampler reads eight cards one after another, about once a second."""

SLOW_CALLS: Final = 0.02
"""Fraction of the calls: a busy host stops a process now and then."""

USED_MEMORY: Final = 0.05
"""Fraction of the capacity: management libraries count memory of the driver that the runtime does not."""

BUSY_PERCENT: Final = 10.0
"""Ten times what a fraction instead of a percentage can be; a device that always computes is busy nearly all the
time, and nothing smaller is an average over its time."""

SAMPLER_COST: Final = 0.02
"""Fraction of the throughput; two measurements of the same run may differ by as much."""


def fp32_operator(terms: int) -> float:
    """Return the largest error of an operator in fp32 whose longest sum has so many terms.

    It is a fraction of the norm of an output or gradient, against float64. Sums of 500 products may be off by 1.3e-5;
    with operands in 16-bit fixed point they are off by 6e-5, and in TF32 by 3e-4.
    """
    return FP32_FUNCTION + FP32_SUM * math.sqrt(terms)
