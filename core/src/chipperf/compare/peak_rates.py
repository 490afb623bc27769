"""Peak rates of devices, from the vendors' installed plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chipperf.errors import PluginError
from chipperf.plugin import installed
from chipperf.plugin.session import bind
from chipperf.records.plausibility import Peak
from chipperf.records.schema import Missing

if TYPE_CHECKING:
    from chipperf.records.schema import Record


def installed_peak(record: Record) -> Peak | None:
    """Return the peak of a run's device at its effective precision, or ``None`` if no installed plugin knows it.

    This imports the plugin of the run's vendor, but not torch.
    """
    effective, card = record.precision.effective, record.environment.card_title
    names = [each.name for each in record.environment.cards] or ([] if isinstance(card, Missing) else [card])
    if isinstance(effective, Missing) or len(set(names)) != 1:
        return None
    try:
        peak = bind(installed.find_vendor(record.vendor.name), purpose="inspect").peak_flops(names[0], effective)
    except PluginError:
        # `perf plugins` shows the fault of the plugin.
        return None
    return None if peak is None else Peak(flops_per_s=peak.flops_per_s, source=peak.source)
