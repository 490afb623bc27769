"""What installed plugins say of themselves, asked together or each by itself."""

from __future__ import annotations

from chipperf.errors import VendorHookError
from chipperf.plugin import installed, probe_process


def names(infos):
    return [info.name for info in infos]


def test_healthy_plugins_are_asked_in_one_process(monkeypatch):
    monkeypatch.setattr(probe_process, "ask_all", None)

    infos = probe_process.installed_infos.__wrapped__()

    assert names(infos) == [entry.name for entry in installed.vendors()]


def test_each_plugin_is_asked_by_itself_where_one_fails(monkeypatch):
    ask = probe_process.ask

    def ask_but_not_together(entry, question, *arguments, **options):
        if question == "describe_all":
            raise VendorHookError("one of them ended the process")
        return ask(entry, question, *arguments, **options)

    monkeypatch.setattr(probe_process, "ask", ask_but_not_together)

    assert names(probe_process.installed_infos.__wrapped__()) == [entry.name for entry in installed.vendors()]
