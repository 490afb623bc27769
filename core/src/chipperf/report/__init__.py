"""Reports: vendor case documents rendered from run records, without torch."""

from chipperf.report.render import render_report

__all__ = ["render_report"]
