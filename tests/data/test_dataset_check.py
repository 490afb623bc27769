from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from chipperf.cases.classification.case import IMAGENET2012
from chipperf.data import dataset_check
from chipperf.data.dataset_identity import ReferenceDataset
from chipperf.data.imagefolder import check_imagefolder


@pytest.fixture
def dataset(tiny_dataset, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tiny_dataset, root)
    (root / "dataset.json").unlink()
    return root


def images(root, split="train"):
    return sorted(root.glob(f"{split}/*/*.jpg"))


def found(report):
    return {finding.code: finding for finding in report.findings}


@pytest.mark.parametrize("full", [False, True])
def test_good_dataset_has_no_findings(tiny_dataset, full):
    report = check_imagefolder(tiny_dataset, full=full)
    assert report.ok
    assert report.findings == ()
    assert (report.train_samples, report.eval_samples, report.classes, report.images_read) == (21, 9, 3, 30)
    assert report.fully_decoded is full


def test_all_problems_are_listed_at_once(dataset):
    empty, text, truncated, missing_class = images(dataset)[:3] + [images(dataset, "val")[0].parent]
    empty.write_bytes(b"")
    text.write_text("<html>404</html>")
    truncated.write_bytes(truncated.read_bytes()[:-200])
    shutil.rmtree(missing_class)
    (dataset / "train" / missing_class.name / "Thumbs.db").write_bytes(b"")
    (dataset / "val" / "nothing").mkdir()
    report = check_imagefolder(dataset, full=True)
    codes = {finding.code for finding in report.findings}
    assert codes == {"empty-file", "unreadable", "not-an-image", "class-difference", "empty-class"}
    assert not report.ok
    messages = " ".join(finding.message for finding in report.findings)
    for path in (empty, text, truncated, "Thumbs.db", missing_class.name, "nothing"):
        assert str(path) in messages


def test_headers_alone_find_what_is_no_image_but_not_truncation(dataset):
    text, truncated = images(dataset)[:2]
    text.write_text("<html>404</html>")
    truncated.write_bytes(truncated.read_bytes()[:-200])
    assert [str(text) in finding.message for finding in check_imagefolder(dataset).findings] == [True]


def test_header_longer_than_the_first_read_is_read_on(dataset, monkeypatch):
    monkeypatch.setattr(dataset_check, "_HEADER_BYTES", 20)
    assert check_imagefolder(dataset).ok


def test_wrong_size_is_a_finding_with_both_numbers(dataset):
    findings = found(check_imagefolder(dataset, IMAGENET2012.reference))
    assert findings["train-count"].message == "21 training images; imagenet2012 has 1281167"
    assert findings["eval-count"].message == "9 evaluation images; imagenet2012 has 50000"
    assert findings["class-count"].message == "3 classes; imagenet2012 has 1000"
    right = ReferenceDataset(name="right", title="Right", train_samples=21, eval_samples=9, classes=3)
    assert check_imagefolder(dataset, right).ok


def test_classes_that_differ_by_case_are_a_warning(dataset):
    for split in ("train", "val"):
        directory = images(dataset, split)[0].parent
        shutil.copytree(directory, directory.with_name(directory.name.upper()))
    report = check_imagefolder(dataset)
    assert report.ok
    assert {finding.code for finding in report.findings} == {"case-only-difference"}
    assert len(report.findings) == 2


def test_changed_sample_dataset_is_a_finding(tiny_dataset, tmp_path):
    root = tmp_path / "sample"
    shutil.copytree(tiny_dataset, root)
    images(root)[0].unlink()
    assert set(found(check_imagefolder(root))) == {"manifest"}
    (root / "dataset.json").write_text("{")
    assert set(found(check_imagefolder(root))) == {"manifest"}


@pytest.mark.parametrize("layout", ["missing", "file", "empty", "no-val", "no-classes"])
def test_directory_of_another_layout_is_a_finding_and_no_exception(dataset, tmp_path, layout):
    root = tmp_path / layout
    if layout == "file":
        root.write_text("")
    elif layout == "empty":
        root.mkdir()
    elif layout == "no-val":
        shutil.copytree(dataset / "train", root / "train")
    elif layout == "no-classes":
        (root / "train").mkdir(parents=True)
        (root / "val").mkdir()
    report = check_imagefolder(root, IMAGENET2012.reference)
    assert not report.ok
    assert set(found(report)) & {"layout", "no-classes"}


def test_progress_ends_at_the_number_of_images(dataset, monkeypatch):
    monkeypatch.setattr(dataset_check, "_FILES_PER_TASK", 4)
    seen = []
    check_imagefolder(dataset, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (30, 30)
    assert [done for done, _ in seen] == [4, 8, 12, 16, 20, 24, 28, 30]


def test_parts_that_need_no_torch_do_not_import_it():
    modules = ["dataset_check", "dataset_identity", "decode", "imagefolder", "sample"]
    program = "import sys\n" + "".join(f"import chipperf.data.{name}\n" for name in modules)
    program += "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
