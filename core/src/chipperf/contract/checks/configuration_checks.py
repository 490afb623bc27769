"""C: checks of the hyperparameters that a vendor ships."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from chipperf.cases.config import require_settable, resolve
from chipperf.cases.registry import case_names, find_case
from chipperf.contract import tolerances
from chipperf.contract.check import check, fail, not_run_on, require
from chipperf.contract.sample_records import JOBS, RANKS, device_names
from chipperf.contract.texts import count_words
from chipperf.errors import ConfigError, VendorHookError
from chipperf.run.ranks import job_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chipperf.cases.base import Case
    from chipperf.contract.plugin_under_test import PluginUnderTest
    from chipperf.plugin.types import CaseOverrides


@check("C1", level=0, fault="an override sets an unknown key, or a key that defines the benchmark")
def overrides_name_settable_keys(subject: PluginUnderTest) -> None:
    """Overrides set only hyperparameters that the case has, and none that it locks."""
    for case, situation, shipped in _shipped(subject):
        for override in shipped.overrides:
            try:
                require_settable(case, override.key, "vendor", f"the vendor on {situation}")
            except ConfigError as error:
                fail(f"{error.message}: remove the override, and explain it in a note; {error.hint}")


@check("C2", level=0, fault="an override has no reason, or a second override of its key replaces it")
def overrides_are_justified(subject: PluginUnderTest) -> None:
    """Each override gives a reason, and no key is overridden twice."""
    least = tolerances.LEAST_OVERRIDE_REASON_WORDS
    for _, situation, shipped in _shipped(subject):
        keys = [override.key for override in shipped.overrides]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        require(not repeated, f"{situation}: {', '.join(repeated)} is overridden twice, and only the last one counts")
        for override in shipped.overrides:
            require(
                count_words(override.reason) >= least,
                f"{situation}: {override.key}={override.value} has the reason {override.reason!r}: say why in "
                f"{least:g} words or more",
            )


@check("C3", level=0, fault="the shipped configuration stops its run, differs between ranks, or has another type")
def shipped_configurations_load(subject: PluginUnderTest) -> None:
    """For every case, preset, topology and device, all ranks' hyperparameters resolve, and have the case's types."""
    for name, main, device_name in product(case_names(), RANKS, device_names(subject.info)):
        for rank in job_ranks(main.local_world_size, machines=main.node_count):
            with not_run_on(VendorHookError, "perf_case_overrides does not work, see A10"):
                first, own = (subject.session.case_overrides(name, each, device_name) for each in (main, rank))
            require(
                own == first,
                f"{name} on {rank.topology} {device_name or 'devices'}: rank {rank.rank} has {own}, rank 0 {first}: "
                "all ranks of a job need the same hyperparameters",
            )
    for case, situation, shipped in _shipped(subject):
        with not_run_on(ConfigError, "an override's key cannot be set, see C1"):
            for override in shipped.overrides:
                require_settable(case, override.key, "vendor", f"the vendor on {situation}")
        for override in shipped.overrides:
            # Otherwise True is a batch of one, and the record has a text as the value of a number.
            base, value = getattr(case.base, override.key), override.value
            require(
                type(value) is type(base) or (type(base) is float and type(value) is int),
                f"{situation}: {override.key}={value!r} is {type(value).__name__}, {type(base).__name__} is needed",
            )
        for preset in case.presets:
            try:
                resolve(case, preset=preset, vendor=subject.entry.name, vendor_overrides=shipped)
            except ConfigError as error:
                fail(f"{situation}, preset {preset}: {error.message}; {error.hint}")


def _shipped(subject: PluginUnderTest) -> Iterator[tuple[Case, str, CaseOverrides]]:
    """Yield the vendor's overrides for each case, topology and device, with a phrase that names the three."""
    for case, rank, device_name in product(map(find_case, case_names()), JOBS, device_names(subject.info)):
        with not_run_on(VendorHookError, "perf_case_overrides does not work, see A10"):
            overrides = subject.session.case_overrides(case.name, rank, device_name)
        yield case, f"{case.name} on {rank.topology} {device_name or 'devices'}", overrides
