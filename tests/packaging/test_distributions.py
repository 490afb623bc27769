"""The archives hold what they promise, and everything but training works from the wheels without torch."""

import json
import runpy
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import HeaderParser

import pytest
from projects import PROJECTS, ROOT, WITH_NUMPY

pytestmark = pytest.mark.slow  # Builds five distributions and installs them into a new environment.

TEMPLATES = sorted(
    path.relative_to(ROOT / "templates").as_posix() for path in (ROOT / "templates").rglob("*") if path.is_file()
)
ENTRY_POINTS = {
    "chipperf": {
        "console_scripts": {"perf": "chipperf.__main__:main", "chipperf": "chipperf.__main__:main"},
        "chipperf.vendors": {"cpu": "chipperf.vendors.cpu"},
        "pytest11": {"chipperf_contract": "chipperf.contract.pytest_plugin"},
    },
    "chipperf-kunlunxin": {"chipperf.vendors": {"kunlunxin": "chipperf_kunlunxin.plugin"}},
    "chipperf-lm": {"chipperf.cases": {"gpt2": "chipperf_lm.case:GPT2"}},
    "chipperf-metax": {"chipperf.vendors": {"metax": "chipperf_metax.plugin"}},
    "chipperf-nvidia": {"chipperf.vendors": {"nvidia": "chipperf_nvidia.plugin"}},
    "chipperf-tensorboard": {"chipperf.observers": {"tensorboard": "chipperf_tensorboard.observer"}},
}


@pytest.fixture
def wheel(distributions):
    """Open the wheel of a project."""
    opened = []

    def open_wheel(name):
        (path,) = distributions.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
        opened.append(zipfile.ZipFile(path))
        return opened[-1]

    yield open_wheel
    for archive in opened:
        archive.close()


def read_metadata(archive, file):
    (member,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{file}"))
    return archive.read(member).decode()


def package_files(name):
    source = PROJECTS[name] / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    return {file for file in files if "__pycache__" not in file}


def test_core_carries_the_templates_as_files(distributions, wheel):
    expected = [f"chipperf/templates/{name}" for name in TEMPLATES]
    (sdist,) = distributions.glob("chipperf-[0-9]*.tar.gz")
    with tarfile.open(sdist) as archive:
        in_sdist = [member for member in archive.getmembers() if "/templates/" in member.name]

    assert sorted(name for name in wheel("chipperf").namelist() if "/templates/" in name) == expected
    assert sorted(member.name.partition("/src/")[2] for member in in_sdist) == expected
    assert all(member.isfile() for member in in_sdist)


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_holds_the_whole_package_and_nothing_else(wheel, name):
    packed = {file for file in wheel(name).namelist() if ".dist-info/" not in file}
    templates = {f"chipperf/templates/{file}" for file in TEMPLATES} if name == "chipperf" else set()

    assert packed == package_files(name) | templates
    assert f"{name.replace('-', '_')}/py.typed" in packed


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_has_licence_and_entry_points(wheel, name):
    archive = wheel(name)
    parser = ConfigParser()
    parser.read_string(read_metadata(archive, "entry_points.txt"))

    assert {section: dict(parser[section]) for section in parser.sections()} == ENTRY_POINTS[name]
    assert read_metadata(archive, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROJECTS)
def test_torch_is_required_by_the_train_extra_only(wheel, name):
    metadata = HeaderParser().parsestr(read_metadata(wheel(name), "METADATA"))
    required = [text for text in metadata.get_all("Requires-Dist") if "extra ==" not in text]

    assert not [text for text in required if text.startswith(("torch", "numpy", "pillow"))]
    of_torch = [text for text in metadata.get_all("Requires-Dist") if text.startswith("torch")]
    assert {text.rpartition("extra == ")[2] for text in of_torch} <= {"'train'"}
    assert metadata["Requires-Python"] == ">=3.10"


def test_installed_environment_has_no_torch(clean):
    listed = json.loads(clean.pip("list", "--format", "json").stdout)

    assert set(PROJECTS) - {WITH_NUMPY} <= {package["name"] for package in listed}
    assert not {"torch", "torchvision", "numpy"} & {package["name"] for package in listed}


@pytest.mark.parametrize(
    ("language", "heading", "row"),
    [
        ("zh", "#### 环境配置", "| A1单机8卡（1x8） | fp32 |"),
        ("en", "#### Environment", "| A1 one machine, 8 cards (1x8) | fp32 |"),
    ],
    ids=["zh", "en"],
)
def test_report_is_rendered_from_a_record(clean, tmp_path, language, heading, row):
    make_record = runpy.run_path(str(ROOT / "tests" / "report" / "factory.py"))["make_record"]
    record = make_record(vendor__name="cpu")
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    (run / "record.json").write_text(record.model_dump_json(), encoding="utf-8")

    rendered = clean.run("perf", "report", run, "--lang", language)

    assert heading in rendered.stdout.splitlines()
    assert row in rendered.stdout
    assert rendered.stderr == ""


def test_documents_are_imported_and_checked(clean, tmp_path):
    seed = ROOT / "tests" / "report" / "seeds" / "metax-resnet50.md"

    imported = clean.run("perf", "report", "import", seed, "--out", tmp_path / "imported")
    checked = clean.run("perf", "lint", seed, "--select", "L06,L16")

    assert "4 records; 0 texts not understood" in imported.stdout
    assert "0 errors, 2 warnings" in checked.stdout


@pytest.mark.parametrize("program", ["perf", "chipperf"])
def test_both_scripts_show_the_help(clean, program):
    assert "train" in clean.run(program, "--help").stdout


def test_cases_are_listed_with_their_hyperparameters(clean):
    cases = json.loads(clean.run("perf", "cases", "--json").stdout)
    resnet50 = json.loads(clean.run("perf", "cases", "resnet50", "--json").stdout)

    assert {case["name"] for case in cases} >= {"resnet50", "mobilenetv2"}
    assert resnet50["hyperparameters"]["batch_size"] == {"role": "scaled", "base": 32}


def test_plugins_lists_every_installed_vendor(clean):
    listed = json.loads(clean.run("perf", "plugins", "--json").stdout)

    assert {entry["name"]: entry["distribution"] for entry in listed} == {
        "cpu": "chipperf",
        "kunlunxin": "chipperf-kunlunxin",
        "metax": "chipperf-metax",
        "nvidia": "chipperf-nvidia",
    }


def test_doctor_probes_every_vendor_and_misses_torch(clean):
    findings = json.loads(clean.run("perf", "doctor", "--json").stdout)

    assert {vendor["name"]: bool(vendor["reason"]) for vendor in findings["vendors"]} == dict.fromkeys(
        ("cpu", "kunlunxin", "metax", "nvidia"), True
    )
    assert findings["perf"]["is_this"]
    assert any("torch is not installed" in warning for warning in findings["warnings"])


@pytest.mark.parametrize("with_data", [True, False])
def test_train_without_torch_says_what_to_install_and_leaves_nothing(clean, tmp_path, with_data):
    work = tmp_path / "work"
    for part in ("train", "val"):
        (work / "images" / part).mkdir(parents=True)
    data = ["--data", "images"] if with_data else []

    completed = clean.run(
        "perf", "train", "mobilenetv2", "--vendor", "cpu", "--out", "run", *data, cwd=work, check=False
    )

    assert completed.returncode == 3, completed.stderr
    assert "is not installed" in completed.stderr
    assert "elsewhere: pip install 'chipperf[train]'" in completed.stderr
    assert "Traceback" not in completed.stderr
    assert [path.name for path in work.iterdir()] == ["images"]
