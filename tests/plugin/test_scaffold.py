"""``perf plugins new``: what it writes, what it refuses, and that the result is a plugin from the first minute."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from chipperf.cli import main as program
from chipperf.errors import UsageError, VendorHookError
from chipperf.plugin import installed, scaffold
from chipperf.plugin.registration import REQUIRED_HOOKS
from chipperf.plugin.scaffold import NewPlugin, create_plugin
from chipperf.plugin.session import bind
from chipperf.plugin.types import Capability, Rank
from jinja2 import UndefinedError
from plugin_environment import PluginEnvironment, inheriting_variables
from support import fill, run_perf
from typer.testing import CliRunner

if TYPE_CHECKING:
    from support import FakeDistributions

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
ACME = NewPlugin(name="acme", title="ACME", device_type="acme")

FILES = """\
.github/workflows/test.yml
.gitignore
LICENSE
README.md
contract-waivers.toml
pyproject.toml
src/chipperf_acme/__init__.py
src/chipperf_acme/plugin.py
src/chipperf_acme/py.typed
tests/test_contract.py
"""


def files_in(directory: Path) -> list[Path]:
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def bind_rendered(plugin: NewPlugin, project: Path, distributions: FakeDistributions):
    """Bind a plugin that was rendered into a directory on ``sys.path``, as if it were installed."""
    distributions.add(plugin.distribution, f"[chipperf.vendors]\n{plugin.name} = {plugin.package}.plugin\n")
    (project / "src" / plugin.package).rename(distributions.root / plugin.package)
    return bind(installed.find_vendor(plugin.name))


def test_project_is_complete(tmp_path):
    files = create_plugin(ACME, tmp_path / "project")

    assert [str(file) for file in files] == FILES.splitlines()
    assert files_in(tmp_path) == [Path("project") / file for file in files]
    assert (tmp_path / "project" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    "plugin",
    [
        ACME,
        NewPlugin(name="my_chip2", title='Zhongwen 芯片 "2" \\ {{ name }}', device_type="cuda"),
        NewPlugin(name="x", title="it's", device_type="privateuseone"),
    ],
    ids=["plain", "difficult", "short"],
)
def test_every_value_arrives(tmp_path, distributions, monkeypatch, plugin):
    monkeypatch.delitem(sys.modules, f"{plugin.package}.plugin", raising=False)
    monkeypatch.delitem(sys.modules, plugin.package, raising=False)
    create_plugin(plugin, tmp_path / "project")
    project = tomllib.loads((tmp_path / "project" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = bind_rendered(plugin, tmp_path / "project", distributions).vendor_info()

    assert project["name"] == plugin.distribution
    assert plugin.title in project["description"]
    assert project["entry-points"][installed.VENDOR_GROUP] == {plugin.name: f"{plugin.package}.plugin"}
    assert (info.name, info.title.en, info.title.zh, info.device_type) == (
        *(plugin.name, plugin.title, plugin.title, plugin.device_type),
    )
    assert info.report_title.en == f"{plugin.title} configuration and results"


def test_only_versions_with_the_same_hooks_are_required(tmp_path, monkeypatch):
    monkeypatch.setattr("chipperf.__version__", "3.12.4.dev5")
    create_plugin(ACME, tmp_path / "project")
    project = tomllib.loads((tmp_path / "project" / "pyproject.toml").read_text())["project"]

    assert project["dependencies"] == ["chipperf>=3.12,<4"]
    assert project["optional-dependencies"] == {"test": ["chipperf[contract]"]}


def test_nothing_of_the_templates_is_left(tmp_path):
    project = tmp_path / "project"
    for file in create_plugin(ACME, project):
        text = (project / file).read_text(encoding="utf-8")
        assert not re.search(r"(?<!\$)\{\{|\{%|NAME|\.j2", text), file


def test_new_code_has_good_style(tmp_path):
    create_plugin(ACME, tmp_path / "project")
    rules = ["--line-length", "120", "--isolated", str(tmp_path)]

    checked = subprocess.run([sys.executable, "-m", "ruff", "check", "--select", "ANN,B,D1,E,F,I,TC,UP,W", *rules])
    formatted = subprocess.run([sys.executable, "-m", "ruff", "format", "--check", *rules])

    assert (checked.returncode, formatted.returncode) == (0, 0)


def test_unwritten_hooks_say_what_to_write(tmp_path, distributions):
    create_plugin(ACME, tmp_path / "project")
    session = bind_rendered(ACME, tmp_path / "project", distributions)
    calls = {
        "perf_load_runtime": session.load_runtime,
        "perf_device_init": lambda: session.device_init(Rank()),
        "perf_device_info": lambda: session.device_info(None),
        "perf_synchronize": lambda: session.synchronize(None),
        "perf_memory_query": lambda: session.memory_query(None),
        "perf_memory_reset_peak": lambda: session.memory_reset_peak(None),
        "perf_distributed_setup": lambda: session.distributed_setup(Rank(), None),
    }

    assert {"perf_vendor_info", "perf_probe", *calls} == {*REQUIRED_HOOKS, "perf_distributed_setup"}
    for hook, call in calls.items():
        with pytest.raises(VendorHookError, match=rf"{hook} raised NotImplementedError: \w{{3}}"):
            call()
    probe = session.probe()
    assert not probe.available
    assert "implement perf_probe in chipperf_acme/plugin.py" in probe.reason
    assert session.vendor_info().capabilities == {Capability.DISTRIBUTED}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Acme", "cannot be called 'Acme'"),
        ("", "cannot be called ''"),
        ("2acme", "cannot be called"),
        ("acme-one", "cannot be called"),
        ("acme_", "cannot be called"),
        ("ac/me", "cannot be called"),
        ("../acme", "cannot be called"),
        ("acme\n", "cannot be called"),
        ("é", "cannot be called"),
        ("class", "cannot be called 'class'"),
        ("auto", "'--vendor auto' chooses"),
        ("cpu", "vendor 'cpu' (chipperf"),
    ],
)
def test_bad_name_is_refused(tmp_path, name, reason):
    with pytest.raises(UsageError) as caught:
        create_plugin(NewPlugin(name=name, title="ACME", device_type="acme"), tmp_path / "project")

    assert reason in caught.value.message
    assert caught.value.hint
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes", [{"title": " "}, {"title": "A\nB"}, {"device_type": "cuda:0"}, {"device_type": ""}], ids=str
)
def test_bad_text_is_refused(tmp_path, changes):
    values = {"name": "acme", "title": "ACME", "device_type": "acme", **changes}

    with pytest.raises(UsageError, match="title|torch.device"):
        create_plugin(NewPlugin(**values), tmp_path / "project")

    assert not any(tmp_path.iterdir())


def test_empty_directory_is_used_and_keeps_the_user_s_rights(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    other = tmp_path / "other"
    other.mkdir()

    create_plugin(ACME, project)

    assert (project / "pyproject.toml").is_file()
    assert project.stat().st_mode == other.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [other, project]


@pytest.mark.parametrize(
    ("directory", "reason"),
    [
        ("full", "full is not an empty directory"),
        ("file", "file is not an empty directory"),
        ("file/project", "file is not a directory"),
        ("none/project", "none is not a directory"),
        ("/proc/project", "cannot write to /proc/project"),
    ],
)
def test_unusable_directory_is_refused_and_untouched(tmp_path, monkeypatch, directory, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")

    with pytest.raises(UsageError) as caught:
        create_plugin(ACME, Path(directory))

    assert reason in caught.value.message
    assert caught.value.hint
    assert files_in(tmp_path) == [Path("file"), Path("full/mine")]


def test_full_disk_leaves_nothing_half_written(small_disk):
    fill(small_disk)
    before = files_in(small_disk)

    with pytest.raises(UsageError) as caught:
        create_plugin(ACME, small_disk / "project")

    assert "No space left" in caught.value.message
    assert "free some space" in caught.value.hint
    assert files_in(small_disk) == before


def test_broken_template_leaves_nothing_half_written(tmp_path, monkeypatch):
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "a.txt.j2").write_text("{{ name }}")
    (templates / "b.txt.j2").write_text("{{ nmae }}")
    monkeypatch.setattr(scaffold, "TEMPLATES", templates)

    with pytest.raises(UndefinedError, match="nmae"):
        create_plugin(ACME, tmp_path / "project")

    assert list(tmp_path.iterdir()) == [templates]


def perf(*arguments: str):
    return CliRunner().invoke(program.app, arguments)


def test_command_names_the_files_and_the_next_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    ended = perf("plugins", "new", "my_chip", "--title", "My Chip", "--device-type", "cuda")

    assert ended.exception is None, ended.output
    written = [f"chipperf-my-chip/{file}" for file in FILES.replace("acme", "my_chip").splitlines()]
    assert ended.stdout.splitlines()[:-1] == written
    assert ended.stdout.splitlines()[-1].endswith("perf contract run --vendor my_chip --level 0")
    source = (tmp_path / "chipperf-my-chip" / "src" / "chipperf_my_chip" / "plugin.py").read_text()
    assert 'en="My Chip"' in source
    assert 'device_type="cuda"' in source


def test_command_takes_a_place_and_has_the_name_for_a_title(tmp_path):
    ended = perf("plugins", "new", "acme", "--directory", str(tmp_path))

    assert ended.exception is None, ended.output
    assert 'Title(zh="acme", en="acme")' in (tmp_path / "chipperf-acme/src/chipperf_acme/plugin.py").read_text()


def test_command_refuses_with_the_code_of_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    ended = perf("plugins", "new", "cpu")

    assert isinstance(ended.exception, UsageError)
    assert ended.exception.exit_code == 2
    assert not any(tmp_path.iterdir())


def test_listing_is_as_before():
    assert "cpu" in perf("plugins").stdout
    assert {entry["name"] for entry in json.loads(perf("plugins", "--json").stdout)} >= {"cpu"}


def test_command_imports_no_torch(tmp_path):
    script = (
        "import sys\nfrom chipperf.cli.main import app\n"
        "app(['plugins', 'new', 'acme'], standalone_mode=False)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )

    completed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "chipperf-acme").is_dir()


FILLING = {
    "perf_probe": """
        device = ProbedDevice(index=0, name="Filled F1", total_bytes=psutil.virtual_memory().total)
        return ProbeResult(available=True, reason="the host plays the card", devices=(device,))
        """,
    "perf_load_runtime": """
        import torch

        return RuntimeInfo(torch=torch.__version__)
        """,
    "perf_device_init": """
        import torch

        return torch.device("cpu")
        """,
    "perf_device_info": """
        return DeviceInfo(index=0, name="Filled F1", total_bytes=psutil.virtual_memory().total)
        """,
    "perf_synchronize": "",
    "perf_memory_query": """
        status = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
        resident_bytes, peak_bytes = (int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return MemoryStats(
            source="resident memory of the process",
            allocated_bytes=resident_bytes,
            peak_allocated_bytes=peak_bytes,
            total_bytes=psutil.virtual_memory().total,
        )
        """,
    "perf_memory_reset_peak": """
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        """,
    "perf_distributed_setup": """
        return DistributedConfig(backend="gloo")
        """,
}
"""What an author whose card is the host would write: the behavior of the CPU reference, hook by hook."""


def fill_in(source: str) -> str:
    """Return the new plugin's module with every hook written."""
    for hook, body in FILLING.items():
        pattern = rf'(def {hook}\(.*?\) -> \w.*?:\n    """.*?"""\n).*?(?=\n\n\n@hookimpl|\Z)'
        lines = re.sub(r"^    ", "", body, flags=re.MULTILINE).rstrip()
        source, count = re.subn(pattern, lambda match, lines=lines: match[1] + lines, source, count=1, flags=re.DOTALL)
        assert count == 1, hook
    source = source.replace(
        "if TYPE_CHECKING:\n    import torch\n    from chipperf import", "import psutil\nfrom chipperf import"
    )
    source = source.replace(
        "DistributedConfig, MemoryStats, Rank, RuntimeInfo", "DistributedConfig, MemoryStats, ProbedDevice, RuntimeInfo"
    )
    return source.replace("{Capability.DISTRIBUTED}", "{Capability.DISTRIBUTED, Capability.UNIFIED_MEMORY}")


@pytest.mark.slow  # Trains some steps in each of a dozen checks.
def test_plugin_whose_hooks_are_written_fulfils_level_1(tmp_path):
    """It is installed beside what is there: what runs it can be forked."""
    project = tmp_path / "filled"
    create_plugin(NewPlugin(name="filledchip", title="Filledchip", device_type="cpu"), project)
    module = project / "src" / "chipperf_filledchip" / "plugin.py"
    module.write_text(fill_in(module.read_text(encoding="utf-8")), encoding="utf-8")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    subprocess.run([*install, "--target", site, project], check=True)

    ended = run_perf(
        *("contract", "run", "--vendor", "filledchip", "--level", 1), PYTHONPATH=str(site), OMP_NUM_THREADS="1"
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"contract \S+ · L0 (\d+)/\1 · L1 (\d+)/\2$", ended.stdout.strip()), ended.stdout


@pytest.mark.slow  # Makes an environment, and runs two dozen checks.
def test_tests_of_a_plugin_fail_with_the_check_that_failed(tmp_path):
    environment, project = PluginEnvironment(tmp_path), tmp_path / "broken"
    create_plugin(NewPlugin(name="brokenchip", title="Brokenchip", device_type="brokenchip"), project)
    environment.install(project, "--editable")
    module = project / "src" / "chipperf_brokenchip" / "plugin.py"
    module.write_text(module.read_text(encoding="utf-8").replace('name="brokenchip"', 'name="other"'), encoding="utf-8")

    ended = environment.run("pytest", cwd=project)

    assert ended.returncode == 1
    assert re.search(r"^A2 +L0 +FAILED", ended.stdout, re.MULTILINE), ended.stdout


@pytest.mark.slow  # Builds core and the plugin, and checks level 0.
def test_workflow_of_a_new_plugin_is_green_when_it_is_copied_out(tmp_path):
    """Its steps are run as they are, with a core from this tree, and what that requires is there."""
    project = tmp_path / "copied"
    create_plugin(NewPlugin(name="copiedchip", title="Copiedchip", device_type="copiedchip"), project)
    workflow = yaml.safe_load((project / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    core = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = core["urls"]["Source"].replace("/tree/main/core", "@main#subdirectory=core")
    assert job["env"]["CHIPPERF"] == f"chipperf[contract] @ git+{source}"
    venv.create(tmp_path / "venv", with_pip=True)
    variables = inheriting_variables(tmp_path) | {
        "CHIPPERF": f"chipperf[contract] @ {(ROOT / 'core').as_uri()}",
        "PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}",
        # Nothing is downloaded; 0 means without isolation.
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_COMPILE": "1",
        "PYTEST_ADDOPTS": "-rP",
    }

    printed = ""
    for step in (step["run"] for step in job["steps"] if "run" in step):
        ended = subprocess.run(["bash", "-ec", step], cwd=project, env=variables, capture_output=True, text=True)
        assert ended.returncode == 0, step + ended.stdout + ended.stderr
        printed += ended.stdout

    assert re.search(r"contract \S+ · L0 (\d+)/\1 · L1 not run \(no device\)", printed)
