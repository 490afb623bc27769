"""Listing, binding and probing need no torch: people who only read reports do not have it."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from chipperf.plugin import installed
from chipperf.plugin.session import bind
(entry,) = [entry for entry in installed.vendors() if entry.name == "acme"]
session = bind(entry, purpose=sys.argv[2])
session.probe()
session.case_overrides("resnet50", None, "")
print(json.dumps(sorted({"torch", "torchvision", "numpy", "pydantic"} & set(sys.modules))))
"""


@pytest.mark.parametrize("purpose", ["inspect", "train"])
def test_binding_and_probing_import_nothing_heavy(plugins, purpose):
    plugins.vendor("acme")

    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(sys.path), purpose], capture_output=True, text=True
    )

    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout) == []
