"""Loading the runtime: versions, and builds of torch that only imitate CUDA."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from chipperf import DeviceError, PluginError
from chipperf_nvidia import runtime
from chipperf_nvidia.plugin import perf_load_runtime
from chipperf_nvidia.run_settings import VARIABLES
from fake_nvml import h200

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import InstallNvml


def fake_torch(version: str = "2.8.0+cu128", **attributes: str | None) -> Any:
    torch: Any = ModuleType("torch")
    torch.__version__ = version
    torch.version = SimpleNamespace(**{"cuda": "12.8", "hip": None, **attributes})
    torch.backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91002))
    torch.distributed = SimpleNamespace(is_available=lambda: True, is_nccl_available=lambda: True)
    torch.cuda = SimpleNamespace(nccl=SimpleNamespace(version=lambda: (2, 27, 3)))
    return torch


@pytest.fixture
def install_torch(monkeypatch: pytest.MonkeyPatch, install_nvml: InstallNvml) -> Any:
    install_nvml(h200(0))
    for name in VARIABLES.meanings["reported"]:
        monkeypatch.delenv(name, raising=False)

    def install(torch: Any, distribution: str | None = None) -> None:
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(runtime, "distribution_version", lambda name: distribution or torch.__version__)

    return install


def test_versions_of_the_stack(install_torch: Any) -> None:
    install_torch(fake_torch())
    info = perf_load_runtime()
    assert (info.torch, info.driver) == ("2.8.0+cu128", "570.86.15")
    assert (info.sdk, info.collectives) == ("CUDA 12.8, cuDNN 91002", "NCCL 2.27.3")
    assert info.framework == "pytorch-2.8.0+cu128"
    assert info.knobs == ()


def test_users_variables_that_matter_are_knobs(install_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install_torch(fake_torch())
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    assert {knob.name: knob.value for knob in perf_load_runtime().knobs} == {
        "NVIDIA_TF32_OVERRIDE": "0",
        "NCCL_ALGO": "Ring",
    }


@pytest.mark.parametrize(
    "name",
    [
        "CUBLAS_EMULATE_SINGLE_PRECISION",
        "CUBLAS_EMULATION_STRATEGY",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "CUDNN_SOMETHING_NEW",
        "NCCL_NVLS_ENABLE",
        "NCCL_SOCKET_IFNAME",
    ],
)
def test_every_variable_of_nvidias_software_is_a_knob(
    install_torch: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install_torch(fake_torch())
    monkeypatch.setenv(name, "1")
    assert {knob.name: knob.value for knob in perf_load_runtime().knobs} == {name: "1"}


def test_driver_is_read_from_its_file_without_nvml(install_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install_torch(fake_torch())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(runtime, "read_driver_version", lambda root: f"550.54 from {root}")
    assert perf_load_runtime().driver == "550.54 from /"


def test_what_the_stack_lacks_is_unknown(install_torch: Any) -> None:
    torch = fake_torch()
    torch.backends.cudnn.version = lambda: None
    torch.distributed.is_nccl_available = lambda: False
    install_torch(torch)
    assert (perf_load_runtime().sdk, perf_load_runtime().collectives) == ("CUDA 12.8", None)


@pytest.mark.parametrize(
    ("version", "attributes", "owner"),
    [
        ("2.8.0+metax3.5.3.9", {}, "MetaX's"),
        ("2.0.0+mc2.20.2.20", {}, "MetaX's"),
        ("2.8.0", {"maca": "3.5.3.9"}, "MetaX's"),
        ("1.13.1+corex.3.1.0", {}, "Iluvatar's"),
        ("2.1.0", {"corex": "4.0"}, "Iluvatar's"),
        ("2.4.1+das.opt1.dtk25041", {}, "Hygon's"),
        ("2.4.1", {"cuda": None, "hip": "6.1"}, "HIP"),
    ],
)
def test_imitation_is_refused(install_torch: Any, version: str, attributes: dict[str, str | None], owner: str) -> None:
    install_torch(fake_torch(version, **attributes))
    with pytest.raises(PluginError, match=owner) as raised:
        perf_load_runtime()
    assert version in raised.value.message
    assert "--vendor" in (raised.value.hint or "")


def test_imitation_that_only_its_metadata_shows_is_refused_without_an_import(
    install_torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_torch(fake_torch(), distribution="2.8.0+metax3.5.3.9")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PluginError, match="MetaX's"):
        perf_load_runtime()


def test_backend_of_another_vendor_beside_upstream_torch_is_refused_without_an_import(
    install_torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_torch(fake_torch())
    monkeypatch.setitem(sys.modules, "torch", None)
    versions = {"torch": "2.10.0+cpu", "torch_fl": "0.1.0+metax3.8.1"}
    monkeypatch.setattr(runtime, "distribution_version", versions.get)
    with pytest.raises(PluginError, match="MetaX's build 0.1.0"):
        perf_load_runtime()


@pytest.mark.parametrize("module", ["torch_xmlir", "torch_xray"])
def test_import_hook_of_another_vendor_is_refused_without_an_import(
    install_torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    install_torch(fake_torch())
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(PluginError, match=module):
        perf_load_runtime()
    assert module not in sys.modules


@pytest.mark.parametrize("version", ["2.8.0+cu128", "2.8.0a0+34c6371d24.nv25.08", "2.9.1", "2.15.0+cu132"])
def test_upstream_and_nvidias_own_builds_are_accepted(install_torch: Any, version: str) -> None:
    install_torch(fake_torch(version))
    assert perf_load_runtime().torch == version


def test_torch_without_cuda_is_refused(install_torch: Any) -> None:
    install_torch(fake_torch("2.8.0+cpu", cuda=None))
    with pytest.raises(DeviceError, match=r"2\.8\.0\+cpu is built without CUDA"):
        perf_load_runtime()
