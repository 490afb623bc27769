"""Token files: the check, the sample, and the converter from text."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from chipperf import DataError
from chipperf.data.dataset_identity import files_sha256, read_manifest
from chipperf_lm.__main__ import main
from chipperf_lm.case import GPT2
from chipperf_lm.sample import ensure_text_sample, topics
from chipperf_lm.tokens import EVAL_FILE, FILES, TRAIN_FILE, check_tokens, identify_tokens, open_tokens


def ignore(done: int, total: int) -> None:
    pass


def write(root, train, evaluation):
    root.mkdir(exist_ok=True)
    for name, values in ((TRAIN_FILE, train), (EVAL_FILE, evaluation)):
        np.asarray(values, "<u2").tofile(root / name)
    return root


def errors(root, expected=None, full=True):
    findings = check_tokens(root, expected, full=full, progress=ignore).findings
    return [(each.severity, each.code) for each in findings]


def test_good_files_have_no_faults(tmp_path):
    report = check_tokens(write(tmp_path, range(100), range(50, 80)), None, full=True, progress=ignore)

    assert (report.ok, report.train_samples, report.eval_samples) == (True, 99, 29)


@pytest.mark.parametrize(
    ("train", "evaluation", "found"),
    [
        ([7] * 50, range(20), ("error", "one-token")),
        ([20240520 & 0xFFFF, 20240520 >> 16, *range(300)], range(20), ("error", "header")),
        (range(100), range(30), ("error", "repeated")),
        (range(20), range(50, 90), ("warning", "swapped")),
        ([1], range(20), ("error", "layout")),
    ],
)
def test_faults_are_found(tmp_path, train, evaluation, found):
    assert found in errors(write(tmp_path, train, evaluation))


def test_odd_number_of_bytes_and_absent_files_are_found(tmp_path):
    write(tmp_path, range(100), range(50, 80))
    (tmp_path / TRAIN_FILE).write_bytes(b"abc")
    assert errors(tmp_path) == [("error", "layout")]
    (tmp_path / EVAL_FILE).unlink()
    assert errors(tmp_path) == [("error", "layout")] * 2
    assert errors(tmp_path / "none") == [("error", "layout")] * 2


def test_reference_has_its_counts_and_its_vocabulary(tmp_path):
    found = errors(write(tmp_path, [1, 2, 50257], [3, 4]), GPT2.data.reference)

    assert found == [("error", "vocabulary"), ("error", "train-count"), ("error", "eval-count")]


def test_only_a_full_check_reads_what_is_between(tmp_path, monkeypatch):
    monkeypatch.setattr("chipperf_lm.tokens._PART", 10)
    root = write(tmp_path, [*range(10), *[5] * 10, *range(10)], range(50, 80))

    assert errors(root, full=False) == []
    assert errors(root, full=True) == [("error", "one-token")]


def test_identity_depends_on_every_token(tmp_path):
    one, other = range(1000), [*range(500), 0, *range(501, 1000)]
    first = identify_tokens(write(tmp_path / "a", one, range(10)), 1000, 10, GPT2.data.reference)
    second = identify_tokens(write(tmp_path / "b", other, range(10)), 1000, 10, GPT2.data.reference)

    assert (first.name, first.train_samples, first.eval_samples, first.is_sample) == ("a", 999, 9, False)
    assert first.fingerprint != second.fingerprint
    assert "images" not in first.fingerprint_method


def test_large_file_is_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr("chipperf.data.dataset_identity._CHUNK_BYTES", 100)
    monkeypatch.setattr("chipperf.data.dataset_identity._MOST_BYTES", 500)
    digests = set()
    for changed in (None, 0, 150, 999):
        content = bytearray(1000)
        if changed is not None:
            content[changed] = 1
        (tmp_path / "large").write_bytes(content)
        digests.add(files_sha256(tmp_path, ["large"]))

    # Byte 150 is between two chunks; the first and the last one are read.
    assert len(digests) == 3


def test_sample_is_text_of_this_python(tmp_path):
    root = ensure_text_sample(ignore, tmp_path)

    manifest = read_manifest(root)
    assert (manifest["name"], manifest["options"]["tokenizer"]) == ("chipperf-text-sample", "bytes")
    assert b"".join(topics()) == b"".join(bytes(open_tokens(root / name).astype("u1")) for name in FILES)
    assert errors(root) == []
    counts = Counter(topics()[1]).values()
    entropy = -sum(count / sum(counts) * math.log(count / sum(counts)) for count in counts)
    # What is learned is more than the frequencies of bytes.
    assert manifest["target_loss"] < 0.75 * entropy
    assert ensure_text_sample(ignore, tmp_path) == root


def test_sample_has_two_sizes(tmp_path):
    tiny = ensure_text_sample(ignore, tmp_path, {"size": "tiny"})

    assert read_manifest(tiny)["train_samples"] == 64 * 32
    with pytest.raises(DataError, match="unknown size 'huge'"):
        ensure_text_sample(ignore, tmp_path, {"size": "huge"})


def test_text_is_converted(tmp_path, capsys):
    (tmp_path / "one.txt").write_text("Ein Satz. " * 30, encoding="utf-8")
    (tmp_path / "two.txt").write_text("还有一句。" * 10, encoding="utf-8")

    code = main([str(tmp_path / "one.txt"), str(tmp_path / "two.txt"), "--out", str(tmp_path / "out")])

    text = ("Ein Satz. " * 30 + "\n" + "还有一句。" * 10).encode()
    tokens = [open_tokens(tmp_path / "out" / name) for name in FILES]
    assert (code, b"".join(bytes(each.astype("u1")) for each in tokens)) == (0, text)
    assert len(tokens[1]) == round(len(text) / 10)
    assert f"{len(tokens[0])} tokens for training" in capsys.readouterr().out
    assert errors(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "none.txt: No such file"),
        (["short.txt"], "each file needs two or more"),
        (["short.txt", "--val-share", "1.5"], "--val-share is 1.5"),
        (["short.txt", "--val-share", "nan"], "--val-share is nan"),
    ],
)
def test_text_that_cannot_be_converted_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("abc")

    assert main([*arguments, "--out", "out"]) == 1
    assert message in capsys.readouterr().err.partition("\n")[0]


def test_tokens_are_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("some text " * 10)
    write(tmp_path / "out", range(10), range(10))

    assert main(["text", "--out", "out"]) == 1
    assert "train.bin exists already" in capsys.readouterr().err
    assert len(open_tokens(tmp_path / "out" / TRAIN_FILE)) == 10
