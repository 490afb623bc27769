"""docs/plugin-guide.md: its package is built from its own blocks, and its claims are tried."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from chipperf import (
    DeviceError,
    Rank,
    UnsupportedPrecision,
    read_case_overrides,
    read_products,
    read_variables,
    read_vendor_info,
)
from chipperf.errors import PluginLoadError, VendorHookError
from chipperf.plugin import installed, selection
from chipperf.plugin.session import bind
from support import run_perf

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

GUIDE = (Path(__file__).parents[2] / "docs" / "plugin-guide.md").read_text(encoding="utf-8")
PYPROJECT, CONFIGS, PRODUCTS, VARIABLES = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
MODULE, PRECISION = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def install(plugins):
    """Lay the guide's package out as pip would, with a module of the given source, and return its entry."""

    def install(source):
        project = tomllib.loads(PYPROJECT)["project"]
        ((name, module),) = project["entry-points"][installed.VENDOR_GROUP].items()
        (plugins.root / f"{module}.py").write_text(source, encoding="utf-8")
        plugins.distribution(
            project["name"], f"[{installed.VENDOR_GROUP}]\n{name} = {module}\n", version=project["version"]
        )
        return installed.find_vendor(name)

    return install


@pytest.mark.slow  # Builds a wheel, and every check of level 0 has a new interpreter.
def test_the_package_passes_level_0_of_the_contract(tmp_path):
    package = tmp_path / "chipperf-acme" / "src" / "chipperf_acme"
    package.mkdir(parents=True)
    for file in re.findall(r"^  (\S+)$", GUIDE, re.MULTILINE):
        (package.parents[1] / file).write_text("Apache-2.0\n" if file == "LICENSE" else "", encoding="utf-8")
    (package.parents[1] / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (package / "__init__.py").write_text(MODULE, encoding="utf-8")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    subprocess.run([*install, "--target", site, package.parents[1]], check=True)

    ended = run_perf("contract", "run", "--vendor", "acme", "--level", 0, PYTHONPATH=str(site))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"contract \S+ · L0 (\d+)/\1$", ended.stdout.strip()), ended.stdout


def test_the_files_of_a_vendor_are_read(tmp_path):
    for name, text in {"configs": CONFIGS, "products": PRODUCTS, "variables": VARIABLES}.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")

    rank = Rank(world_size=8, local_world_size=8)
    overrides = read_case_overrides(tmp_path / "configs.toml", "resnet50", rank, "ACME A1").overrides
    variables = read_variables(tmp_path / "variables.toml")

    assert [(override.key, override.value) for override in overrides] == [("batch_size", 256)]
    assert read_vendor_info(tmp_path / "products.toml").short_name("ACME A1 40GB") == "A1"
    assert read_products(tmp_path / "products.toml").peak_flops("ACME A1 40GB", "bf16").flops_per_s == 312e12
    assert set(variables.meanings["reported"]) == {"ACME_DEBUG", "ACME_*"}
    assert [variable.value for variable in variables.settings["deterministic"]] == ["1"]


def test_the_package_is_the_only_vendor_and_is_chosen(install):
    entry = install(MODULE)

    assert selection.select_vendor("acme").entry == entry
    assert selection.select_vendor().origin == "auto"


def test_the_module_does_what_the_guide_says(install):
    session = bind(install(MODULE))
    device = session.device_init(Rank())

    assert session.load_runtime().sdk == "ACME SDK 1.0"
    assert session.device_info(device).name == "ACME A1"
    assert session.memory_query(device).allocated_bytes > 0
    assert session.memory_query(device).total_bytes is None
    session.synchronize(device)
    session.memory_reset_peak(device)
    with pytest.raises(DeviceError, match="local rank 1 has no device"):
        session.device_init(Rank(rank=1, local_rank=1, world_size=2, local_world_size=2))


def test_the_module_imports_no_torch_at_its_top():
    assert not re.search(r"^(import|from) torch", MODULE, re.MULTILINE)


def test_precision_is_fp32_only_until_the_hook_is_added(install):
    session = bind(install(MODULE))
    device = session.device_init(Rank())

    assert session.precision("fp32", device).effective == "fp32"
    with pytest.raises(UnsupportedPrecision):
        session.precision("bf16", device)


def test_precision_hook_of_the_guide_adds_bf16_only(install):
    source = MODULE.replace('device_type="cpu",', 'device_type="cpu", capabilities=frozenset({Capability.BF16}),')
    session = bind(install(f"from chipperf import Capability\n{source}\n{PRECISION}"))

    assert session.precision("bf16", None).autocast_dtype == "bfloat16"
    with pytest.raises(UnsupportedPrecision, match="ACME A1 does not run fp16"):
        session.precision("fp16", None)


def test_error_texts_of_the_guide_are_real(install):
    with pytest.raises(PluginLoadError) as misspelled:
        bind(install(MODULE.replace("perf_synchronize", "perf_sychronize")))

    assert str(misspelled.value) in GUIDE


def test_result_error_of_the_guide_is_real(install):
    entry = install(MODULE.replace("return MemoryStats(", "return dict("))

    with pytest.raises(VendorHookError) as caught:
        bind(entry).memory_query(None)

    assert str(caught.value) in GUIDE
