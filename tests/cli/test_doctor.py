"""``perf doctor`` names what stands in the way of training."""

import json

import pytest
from support import execute_perf


def examine(perf, **environment):
    result = perf("doctor", "--json", **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("entry_points", "words"),
    [
        ("[chipperf.vendor]\nacme = json\n", ("chipperf-acme 1.2", "'chipperf.vendor'", "chipperf.vendors")),
        ("[chipperf.vendors]\nacme = module_that_is_gone\n", ("module_that_is_gone", "reinstall")),
    ],
    ids=["misspelled group", "stale metadata"],
)
def test_entry_points_that_lead_nowhere_are_warned_about(distributions, perf, entry_points, words):
    distributions.add("chipperf-acme", entry_points)
    warnings = examine(perf, PYTHONPATH=str(distributions.root))["warnings"]
    assert any(all(word in warning for word in words) for warning in warnings)


def test_broken_metadata_of_others_stops_nothing(distributions):
    distributions.add("foreign", "")
    (distributions.root / "foreign-1.2.dist-info" / "entry_points.txt").write_bytes(b"[x]\nandr\xe9 = x\n")
    distributions.add("other", "")
    (distributions.root / "other-1.2.dist-info" / "METADATA").write_bytes(b"Name: other\nAuthor: Andr\xe9\n")
    # pydantic looks for plugins when it is imported.
    findings = examine(execute_perf, PYTHONPATH=str(distributions.root))
    assert "cpu" in {vendor["name"] for vendor in findings["vendors"]}
    assert "foreign" not in str(findings)


def test_visible_device_variables_that_contradict_each_other_are_warned_about(distributions, perf):
    (distributions.root / "acme_plugin.py").write_text(
        "from chipperf import ProbeResult, Title, VendorInfo, hookimpl\n"
        "@hookimpl\n"
        "def perf_vendor_info():\n"
        "    title = Title(zh='艾克米', en='ACME')\n"
        "    names = ('ACME_VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES')\n"
        "    return VendorInfo(name='acme', title=title, report_title=title, device_type='cuda',\n"
        "                      visible_devices_env=names)\n"
        "@hookimpl\n"
        "def perf_probe():\n"
        "    return ProbeResult(available=False, reason='no card')\n"
    )
    distributions.add("chipperf-acme", "[chipperf.vendors]\nacme = acme_plugin\n")
    root = str(distributions.root)
    findings = examine(perf, PYTHONPATH=root, ACME_VISIBLE_DEVICES="0,1", CUDA_VISIBLE_DEVICES="2")
    acme = next(vendor for vendor in findings["vendors"] if vendor["name"] == "acme")
    assert acme["visible_devices"] == {"ACME_VISIBLE_DEVICES": "0,1", "CUDA_VISIBLE_DEVICES": "2"}
    assert "lacks" in acme["trains"]
    assert any("contradict" in warning and "ACME_VISIBLE_DEVICES wins" in warning for warning in findings["warnings"])
    same = examine(perf, PYTHONPATH=root, ACME_VISIBLE_DEVICES="2", CUDA_VISIBLE_DEVICES="2")
    assert not any("contradict" in warning for warning in same["warnings"])


def test_compute_loads_the_stack_and_uses_the_device(perf):
    result = perf("doctor", "--compute", "--json")
    cpu = next(vendor for vendor in json.loads(result.stdout)["vendors"] if vendor["name"] == "cpu")
    assert cpu["compute"]["compute"] == "ok"
    assert cpu["compute"]["torch"]
