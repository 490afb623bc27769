"""How far a measurement may be off before a check fails; one table, so that each figure is seen and argued for once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chipperf.precisions import ARITHMETICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """One bound.

    Attributes:
        name: What it bounds; the unit is the suffix, a fraction has none.
        value: The bound.
        justification: Why it is neither narrower nor wider.
    """

    name: str
    value: float
    justification: str


TOLERANCES: Final = (
    Tolerance(
        name="probe_s",
        value=5.0,
        justification="whoever chooses a vendor waits for every probe; two calls of a management tool fit in",
    ),
    Tolerance(
        name="least_reason_words",
        value=5,
        justification="what was looked for and what to do; 'no /dev/x0: load the module' has six words, 'no card' two",
    ),
    Tolerance(
        name="least_override_reason_words",
        value=3,
        justification="'fills the card' has three words; one or two only repeat the key",
    ),
    Tolerance(
        name="least_device_memory_bytes",
        value=2.0**26,
        justification="no card has less than 64 MiB, and no capacity in MiB or GiB is as high a number",
    ),
    Tolerance(
        name="least_peak_flops_per_s",
        value=1e9,
        justification="no accelerator is slower than 1 GFLOP/s, and no rate in GFLOP/s or TFLOP/s is as high a number",
    ),
    Tolerance(
        name="total_memory",
        value=0.02,
        justification="a driver may hold back about one percent of a card; GB for GiB is off by 7 %",
    ),
    Tolerance(
        name="host_memory_bytes",
        value=2.0**20,
        justification="host memory passed off as a card's is copied exactly; a card's own capacity is not that close",
    ),
    Tolerance(
        name="allocation_bytes",
        value=16 * 2.0**20,
        justification="a quarter of the tensor that is allocated: covers rounding up to an allocator's segments and "
        "the noise of a process's resident memory, and is far from any mistake of a unit",
    ),
    Tolerance(
        name="unused_device_bytes",
        value=2.0**20,
        justification="a runtime may keep a few constants on a card before the first tensor",
    ),
    Tolerance(
        name="repeated_query_bytes",
        value=4 * 2.0**20,
        justification="resident memory of a process moves by some pages while it is read; a peak that is reset falls "
        "by the 64 MiB of the tensor that was freed",
    ),
    Tolerance(
        name="training_growth_bytes",
        value=8 * 2.0**20,
        justification="over 40 steps of a network whose activations are 1 MiB each: one step in five may leave one "
        "behind; resident memory of a process moves by less",
    ),
    Tolerance(
        name="repeated_init",
        value=0.5,
        justification="threads, open files and tensors left behind per repeated call; a leak leaves one each time",
    ),
    Tolerance(
        name="remaining_work",
        value=0.25,
        justification="share of long work that a read-back waits for after a synchronise: none, but a busy host may "
        "take the process off its core for tens of milliseconds; without synchronising it is most of the work",
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
        justification="the fraction by which totals and windows may differ before a report is suspect",
    ),
    Tolerance(
        name="idle_synchronise_s",
        value=0.02,
        justification="idle, it takes microseconds on every stack; a hidden sleep of 20 ms would cost a window 0.1 %",
    ),
    Tolerance(
        name="other_device_wait",
        value=0.5,
        justification="share of one device's work that synchronising another may take; waiting for it takes all of it",
    ),
    Tolerance(
        name="barrier_wait",
        value=0.9,
        justification="share of the last rank's delay that a barrier must last; the rest is how far apart ranks start",
    ),
    Tolerance(
        name="ddp_gradient",
        value=1e-3,
        justification="fp32 sums of 16 samples in another order differ by 1e-6 of the largest value, a gradient that "
        "is not averaged by half of it",
    ),
    Tolerance(
        name="failed_run_s",
        value=25.0,
        justification="the others notice at once, and torch's launcher kills what ignores SIGTERM after 30 s",
    ),
    *(
        Tolerance(name=f"equivalence_{what}_{name}", value=bound.value, justification=bound.justification)
        for name, arithmetic in ARITHMETICS.items()
        for what, bound in (("loss", arithmetic.loss), ("gradient", arithmetic.gradient))
    ),
    Tolerance(
        name="fp32_operator",
        value=2e-5,
        justification="of the norm of an output or gradient, against float64: sums of 1000 fp32 products are off by "
        "1e-6, Winograd's by a few times that; 16-bit fixed point by 6e-5, TF32 by 3e-4",
    ),
    Tolerance(
        name="least_power_w",
        value=0.1,
        justification="no card takes less, and 0 stands for unknown, which is None",
    ),
    Tolerance(
        name="most_power_w",
        value=10_000,
        justification="no card takes 10 kW, and an idle one takes more than 10 000 mW",
    ),
    Tolerance(
        name="least_temperature_c",
        value=1,
        justification="a card in use is warmer than its room, and 0 stands for unknown, which is None",
    ),
    Tolerance(
        name="most_temperature_c",
        value=130,
        justification="silicon shuts down before; no temperature in kelvin or tenths of a degree is as low a number",
    ),
    Tolerance(
        name="least_clock_mhz",
        value=10,
        justification="no card is clocked as slowly, and no clock in GHz is as high a number",
    ),
    Tolerance(
        name="most_clock_mhz",
        value=10_000,
        justification="no card is clocked as fast, and no clock in kHz or Hz is as low a number",
    ),
    Tolerance(
        name="telemetry_call_s",
        value=0.2,
        justification="eight cards are read one after another, about once a second",
    ),
    Tolerance(
        name="sampler_cost",
        value=0.02,
        justification="of the throughput; the difference that two measurements of one run may show anyway",
    ),
)


def tolerance(name: str) -> float:
    """Return the bound called ``name``."""
    return _VALUES[name]


_VALUES: Final = {entry.name: entry.value for entry in TOLERANCES}
