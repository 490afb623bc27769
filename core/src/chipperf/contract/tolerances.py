"""The tolerances of all checks in one table, each with its justification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chipperf.precisions import ARITHMETICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """One bound.

    Attributes:
        name: The bounded quantity, with the unit as suffix. A fraction has no suffix.
        value: The bound.
        justification: Why a tighter or a wider bound would be wrong.
    """

    name: str
    value: float
    justification: str


TOLERANCES: Final = (
    Tolerance(
        name="probe_s",
        value=5.0,
        justification="choosing a vendor waits for every probe; two calls of a management tool take less",
    ),
    Tolerance(
        name="least_reason_words",
        value=5,
        justification="a reason says what the probe looked for and what to do; 'no /dev/x0: load the module' has six "
        "words, 'no card' has two",
    ),
    Tolerance(
        name="least_override_reason_words",
        value=3,
        justification="'fills the card' has three words; one or two words only repeat the key",
    ),
    Tolerance(
        name="least_device_memory_bytes",
        value=2.0**26,
        justification="every card has more than 64 MiB; the number is smaller for any capacity in MiB or GiB",
    ),
    Tolerance(
        name="least_peak_flops_per_s",
        value=1e9,
        justification="every accelerator is faster than 1 GFLOP/s; the number is smaller for any rate in GFLOP/s or "
        "TFLOP/s",
    ),
    Tolerance(
        name="total_memory",
        value=0.02,
        justification="a driver may reserve about one percent of a card; GB instead of GiB is wrong by 7 %",
    ),
    Tolerance(
        name="host_memory_bytes",
        value=2.0**20,
        justification="host memory reported as a card's has exactly the same size; a card's own capacity differs more",
    ),
    Tolerance(
        name="allocation_bytes",
        value=16 * 2.0**20,
        justification="a quarter of the allocated tensor: more than rounding to an allocator's segments and the noise "
        "of a process's resident memory, and much less than an error in the unit",
    ),
    Tolerance(
        name="unused_device_bytes",
        value=2.0**20,
        justification="a runtime may store a few constants on a card before the first tensor",
    ),
    Tolerance(
        name="repeated_query_bytes",
        value=4 * 2.0**20,
        justification="the resident memory of a process changes by some pages while it is read; a reset lowers the "
        "peak by the 64 MiB of the freed tensor",
    ),
    Tolerance(
        name="training_growth_bytes",
        value=8 * 2.0**20,
        justification="over 40 steps of a network with activations of 1 MiB each: one step in five may leak one; the "
        "resident memory of a process changes by less",
    ),
    Tolerance(
        name="repeated_init",
        value=0.5,
        justification="threads, open files and tensors that each repeated call leaks; a real leak adds one per call",
    ),
    Tolerance(
        name="remaining_work",
        value=0.25,
        justification="fraction of long work that reading the result waits for after perf_synchronize: none, but a "
        "busy host may stop the process for tens of milliseconds; without synchronizing it is most of the work",
    ),
    Tolerance(
        name="doubled_work_least",
        value=1.5,
        justification="larger products run at a higher rate, and launching takes a constant time",
    ),
    Tolerance(
        name="doubled_work_most",
        value=2.6,
        justification="larger products may fall out of a cache, and a warm card may lower its clock",
    ),
    Tolerance(
        name="window_time",
        value=0.02,
        justification="totals and windows in a report may differ by this fraction",
    ),
    Tolerance(
        name="idle_synchronize_s",
        value=0.02,
        justification="on an idle device it takes microseconds with every stack; a sleep of 20 ms would lengthen a "
        "window by 0.1 %",
    ),
    Tolerance(
        name="other_device_wait",
        value=0.5,
        justification="fraction of one device's work that synchronizing another device may take; a wait for the first "
        "device takes all of it",
    ),
    Tolerance(
        name="barrier_wait",
        value=0.9,
        justification="fraction of the last rank's delay that a barrier must wait; the rest allows for different start "
        "times of the ranks",
    ),
    Tolerance(
        name="ddp_gradient",
        value=1e-3,
        justification="fp32 sums of 16 samples in another order differ by 1e-6 of the largest value; a gradient that "
        "is not averaged differs by half of it",
    ),
    Tolerance(
        name="failed_run_s",
        value=25.0,
        justification="the other ranks notice at once, and torch's launcher kills processes that ignore SIGTERM after "
        "30 s",
    ),
    *(
        Tolerance(name=f"equivalence_{what}_{name}", value=bound.value, justification=bound.justification)
        for name, arithmetic in ARITHMETICS.items()
        for what, bound in (("loss", arithmetic.loss), ("gradient", arithmetic.gradient))
    ),
    Tolerance(
        name="fp32_operator",
        value=2e-5,
        justification="fraction of the norm of an output or gradient, against float64; the error of sums of 1000 fp32 "
        "products is 1e-6, with Winograd's algorithm a few times more, with 16-bit fixed point 6e-5, with TF32 3e-4",
    ),
    Tolerance(
        name="least_power_w",
        value=0.1,
        justification="every card uses more; 0 would stand for an unknown value, which must be None",
    ),
    Tolerance(
        name="most_power_w",
        value=10_000,
        justification="every card uses less than 10 kW, and an idle card uses more than 10 000 mW",
    ),
    Tolerance(
        name="least_temperature_c",
        value=1,
        justification="a card in use is warmer than the room; 0 would stand for an unknown value, which must be None",
    ),
    Tolerance(
        name="most_temperature_c",
        value=130,
        justification="a card shuts down at a lower temperature; in kelvin or tenths of a degree the number is higher",
    ),
    Tolerance(
        name="least_clock_mhz",
        value=10,
        justification="every card has a higher clock; in GHz the number is lower",
    ),
    Tolerance(
        name="most_clock_mhz",
        value=10_000,
        justification="every card has a lower clock; in kHz or Hz the number is higher",
    ),
    Tolerance(
        name="telemetry_call_s",
        value=0.2,
        justification="the sampler reads eight cards one after another, about once a second",
    ),
    Tolerance(
        name="sampler_cost",
        value=0.02,
        justification="fraction of the throughput; two measurements of the same run may differ by as much",
    ),
)


def tolerance(name: str) -> float:
    """Return the bound called ``name``."""
    return _VALUES[name]


_VALUES: Final = {entry.name: entry.value for entry in TOLERANCES}
