"""Bundles, and what is refused as one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from contextlib import suppress

import pytest
from chipperf.bundle import bundle_check
from chipperf.bundle.manifest import name_problem
from chipperf.bundle.pack import pack
from chipperf.bundle.signature import SIGNATURE
from chipperf.cli.main import app
from chipperf.errors import CheckFailed, PerfError, UsageError
from chipperf.records.store import read_record
from chipperf.run.events import window_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import Published, publish
from support import wait_for
from typer.testing import CliRunner

RECORD = "runs/first/record.json"
RUNS = ("first", "second", "old", "third")


def perf(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_directories(published):
    return [published.record(run).parent for run in RUNS]


def events_of(file):
    """Yield the lines of the event log that a run with this record would have written."""
    record = read_record(file)
    yield event("GLOBAL_BATCH_SIZE", 256)
    yield event("SEED", record.seed)
    yield event("OPT_BASE_LEARNING_RATE", 0.1)
    yield event("TRAIN_SAMPLES", record.dataset.train_samples)
    yield event("EVAL_SAMPLES", record.dataset.eval_samples)
    for name, measured in (("WINDOW_STOP", record.metrics.p_train), ("CORE_WINDOW_STOP", record.metrics.p_core)):
        for index, window in enumerate(measured.windows):
            step = window.first_step + (window.steps - 1 if name == "WINDOW_STOP" else index)
            yield event(name, window_value(window), step=step)
    yield event("RUN_STOP", "success")


def event(name, value, **metadata):
    return json.dumps({"event": name, "value": value, "metadata": metadata}) + "\n"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A report and its bundle, with logs and with things in a run's directory that do not belong into one."""
    published = publish(tmp_path_factory.mktemp("bundled"))
    run = published.record("first").parent
    (run / "logs").mkdir()
    (run / "logs" / "rank0.log").write_text("step 1\n")
    (run / "events.jsonl").write_text("".join(events_of(published.record("first"))))
    (run / "telemetry-node0.jsonl").write_text("{}\n")
    (run / "plan.json").write_text("{}\n")
    (run / "logs" / "rank1.log").symlink_to("/etc/hostname")
    result = perf(
        "bundle", *run_directories(published), "--report", published.page, "--out", published.directory / "b.tar.gz"
    )
    assert result.exception is None, result.output
    return published


@pytest.fixture
def published(pristine, tmp_path):
    shutil.copytree(pristine.directory, tmp_path / "copy", symlinks=True)
    return Published(tmp_path / "copy")


@pytest.fixture
def bundle(published):
    return published.directory / "b.tar.gz"


def members(bundle):
    with tarfile.open(bundle) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


def write(bundle, contents, *extra):
    """Write an archive of files by name, then entries of any kind."""
    with tarfile.open(bundle, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in extra:
            archive.addfile(entry, io.BytesIO(b"x" * min(entry.size, 10**6)))


def rewritten(contents):
    """Return contents with a manifest and checksums that fit: what somebody who edits a bundle carefully would do."""
    manifest = json.loads(contents["manifest.json"])
    manifest["files"] = [
        {"name": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
        if name not in ("manifest.json", "SHA256SUMS")
    ]
    sums = "".join(f"{file['sha256']}  {file['name']}\n" for file in manifest["files"])
    return contents | {"manifest.json": json.dumps(manifest).encode(), "SHA256SUMS": sums.encode()}


def refusal(bundle):
    result = perf("bundle", "check", bundle)
    assert isinstance(result.exception, CheckFailed), result.output
    return f"{result.exception.message} {result.output}"


def test_a_bundle_holds_what_was_measured_and_what_was_reported(bundle):
    names = set(members(bundle))
    assert {f"runs/{run}/record.json" for run in RUNS} <= names
    assert {f"runs/first/{name}" for name in ("logs/rank0.log", "events.jsonl", "telemetry-node0.jsonl")} <= names
    assert {"reports/1/README.md", "reports/1/README.md.provenance.json", "reports/1/acc.csv"} <= names
    assert not [name for name in names if "plan.json" in name or "rank1" in name]


def test_a_bundle_is_as_packed(bundle):
    result = perf("bundle", "check", bundle, "--json")
    assert result.exception is None
    described = json.loads(result.stdout)
    assert described["runs"] == list(RUNS)
    assert described["reports"] == [{"file": "reports/1/README.md", "equal": True, "differences": []}]


def test_the_same_files_give_the_same_archive(published, bundle):
    again = published.directory / "again.tar.gz"
    perf("bundle", *run_directories(published), "--report", published.page, "--out", again)
    assert again.read_bytes() == bundle.read_bytes()


def test_sha256sum_checks_an_unpacked_bundle(bundle, tmp_path):
    subprocess.run(["tar", "xzf", bundle, "-C", tmp_path], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], check=True, cwd=tmp_path, capture_output=True)


def test_records_alone_are_a_bundle(published, bundle):
    assert perf("bundle", published.record("first"), "--out", bundle).exception is None
    assert set(members(bundle)) == {"manifest.json", "SHA256SUMS", "runs/first/record.json"}
    assert perf("bundle", "check", bundle).exception is None


def test_a_document_is_packed_as_it_is(published, bundle):
    document = published.directory / "limits.json"
    document.write_text("{}")
    packed = perf("bundle", published.record("first"), "--document", document, "--out", bundle)
    assert packed.exception is None
    assert members(bundle)["documents/1/limits.json"] == b"{}"
    assert perf("bundle", "check", bundle).exception is None
    write(bundle, members(bundle) | {"documents/1/limits.json": b"[]"})
    assert "its SHA-256 differs" in refusal(bundle)


@pytest.mark.parametrize("key", ["limits_version", "contract_version", "comparisons"])
def test_a_document_that_contradicts_its_kind_is_neither_packed_nor_accepted(published, bundle, key):
    document = published.directory / "document.json"
    document.write_text("{}")
    assert perf("bundle", published.record("first"), "--document", document, "--out", bundle).exception is None
    document.write_text(json.dumps({key: 1}))

    refused = perf("bundle", published.record("first"), "--document", document, "--out", bundle)

    assert refused.exception.exit_code == 4
    assert "document.json: " in refused.stderr
    pack([published.record("first")], [], bundle, documents=[document])
    checked = perf("bundle", "check", bundle)
    assert checked.exception.exit_code == 4
    assert "\ndocuments/1/document.json: " in checked.stderr


def test_a_document_of_another_kind_is_not_packed(published, bundle):
    document = published.directory / "run.sh"
    document.write_text("true")
    result = perf("bundle", published.record("first"), "--document", document, "--out", bundle)
    assert isinstance(result.exception, UsageError)
    assert "with a name of .json, .png" in result.exception.message


def test_a_report_that_differs_is_not_packed(published, bundle):
    before = bundle.read_bytes()
    published.edit(published.page, "| 4475 |", "| 4476 |")
    result = perf("bundle", *run_directories(published), "--report", published.page, "--out", bundle)
    assert result.exception.exit_code == 4
    assert "the page says 4476" in result.output
    assert bundle.read_bytes() == before


def test_a_report_on_a_run_that_is_not_packed_is_refused(published, bundle):
    result = perf("bundle", *run_directories(published)[:1], "--report", published.page, "--out", bundle)
    assert "there is no record of run second" in result.output
    assert result.exception.exit_code == 4


def test_a_run_that_is_named_twice_is_refused(published, bundle):
    result = perf("bundle", published.record("first"), published.record("first"), "--out", bundle)
    assert "named twice" in result.exception.message


@pytest.mark.parametrize("name", ["absent/b.tar.gz", ""])
def test_an_archive_that_cannot_be_written_is_an_error(published, name):
    result = perf("bundle", published.record("first"), "--out", published.directory / name)
    assert result.exception.exit_code == 2
    assert not list(published.directory.glob(".*"))


@pytest.mark.parametrize("name", ["runs/first/logs/rank0.log", "runs/first/record.json", "reports/1/README.md"])
def test_a_changed_file_is_found(bundle, name):
    contents = members(bundle)
    contents[name] = contents[name][:-1] + b"X"
    write(bundle, contents)
    assert f"{name!r}: its SHA-256 differs from" in refusal(bundle)


def test_a_changed_report_with_fitting_checksums_is_found(bundle):
    contents = members(bundle)
    contents["reports/1/README.md"] = contents["reports/1/README.md"].replace(b"| 4475 |", b"| 4476 |")
    write(bundle, rewritten(contents))
    assert "reports/1/README.md:" in refusal(bundle)
    assert "the page says 4476, the record says 4475" in refusal(bundle)


def test_a_changed_record_with_fitting_checksums_is_found(bundle):
    contents = members(bundle)
    contents["runs/first/record.json"] = contents["runs/first/record.json"].replace(b"4475.0", b"4476.0")
    write(bundle, rewritten(contents))
    assert "the record was edited" in refusal(bundle)


@pytest.mark.parametrize(
    ("content", "message"), [(b"[]", "schema_version is missing"), (b'{"schema_version": 9}', "reads up to 2")]
)
def test_a_record_that_is_none_is_found(bundle, content, message):
    write(bundle, rewritten(members(bundle) | {"runs/first/record.json": content}))
    assert message in refusal(bundle)
    assert "runs/first/record.json" in refusal(bundle)


def test_a_record_of_another_run_is_found(bundle):
    contents = members(bundle)
    contents["runs/first/record.json"] = contents["runs/second/record.json"]
    write(bundle, rewritten(contents))
    assert "of run second, not first" in refusal(bundle)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("runs/ghost/record.json", "belongs to no run and no report"),
        ("reports/1/record.json", "is not a file that a bundle contains"),
        ("runs/first/logs/Record.JSON", "is not a file that a bundle contains"),
        ("reports/1/second.md", "is not a file that a bundle contains"),
        ("runs/first/README.MD", "is not a file that a bundle contains"),
        ("runs/ghost/events.jsonl", "belongs to no run and no report"),
        ("reports/2/acc.csv", "belongs to no run and no report"),
        ("extra/notes.txt", "belongs to no run and no report"),
        ("notes.txt", "belongs to no run and no report"),
    ],
)
def test_a_file_that_nobody_would_check_is_refused(bundle, name, problem):
    contents = members(bundle)
    write(bundle, rewritten(contents | {name: contents["runs/first/record.json"]}))
    assert f"{name!r} {problem}" in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda manifest: manifest.update(runs=[]), "runs: List should have at least 1 item"),
        (lambda manifest: manifest["runs"].append(manifest["runs"][0]), "runs: a name occurs twice"),
        (lambda manifest: manifest["runs"][1].update(record="runs/first/record.json"), "records: a name occurs twice"),
        (lambda manifest: manifest["runs"][0].update(record="runs/first/events.jsonl"), "is not the record of"),
        (lambda manifest: manifest["reports"].append("reports/1/README.md"), "reports: a name occurs twice"),
        (lambda manifest: manifest.update(documents=["runs/first/events.jsonl"]), "is not below documents"),
        (lambda manifest: manifest.update(reports=[]), "belongs to no run and no report"),
        (lambda manifest: manifest.update(reports=["runs/first/events.jsonl"]), "is not below reports"),
        (lambda manifest: manifest.update(schema_version=3), "schema_version: Input should be less than"),
        (lambda manifest: manifest.update(metrics_version=0), "metrics_version: Input should be greater than"),
    ],
)
def test_a_manifest_that_leaves_something_out_is_refused(bundle, change, problem):
    contents = members(bundle)
    manifest = json.loads(contents["manifest.json"])
    change(manifest)
    write(bundle, rewritten(contents | {"manifest.json": json.dumps(manifest).encode()}))
    assert problem in refusal(bundle)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "reports/1/README.html",
            "reports/1/README.markdown",
            "reports/1/run.sh",
            "reports/1/x.pt",
            "reports/1/LICENSE",
        ),
        *("runs/first/run.sh", "runs/first/plan.json", "runs/first/logs/model.pt", "runs/first/checkpoints/x.log"),
        *("runs/first/logs/a/b.log", "runs/first/telemetry-node/run.sh.jsonl", "reports/1/other.md.provenance.json"),
    ],
)
def test_only_what_perf_bundle_packs_is_accepted(bundle, name):
    write(bundle, rewritten(members(bundle) | {name: b"x"}))
    assert f"'{name}' is not a file that a bundle contains" in refusal(bundle)


@pytest.mark.parametrize("name", ["reports/1/more.csv", "reports/1/more.svg"])
def test_a_file_that_no_report_links_is_refused(bundle, name):
    write(bundle, rewritten(members(bundle) | {name: b"x"}))
    assert f"{name} is linked by no report" in refusal(bundle)


def test_the_check_says_what_verify_notes(bundle):
    """A run of the same row that the report does not show, and pictures that nothing confirms."""
    contents = members(bundle)
    del contents["reports/1/README.md.provenance.json"]
    again = json.loads(contents[RECORD]) | {"run_id": "again"}
    contents["runs/again/record.json"] = json.dumps(again).encode()
    manifest = json.loads(contents["manifest.json"])
    manifest["runs"].append({"run_id": "again", "record": "runs/again/record.json"})
    write(bundle, rewritten(contents | {"manifest.json": json.dumps(manifest).encode()}))
    result = perf("bundle", "check", bundle)
    assert "run again (completed) of the same row lies beside, and the page does not say so" in result.output
    assert "the records were found by the short hashes on the page" in result.output
    remarks = json.loads(perf("bundle", "check", bundle, "--json").stdout)["remarks"]
    assert any("run again (completed)" in text for text in remarks)


def test_names_that_a_file_system_may_not_tell_apart_are_refused(bundle):
    twins = ("runs/first/logs/\u00e9.log", "runs/first/logs/e\u0301.log")
    write(bundle, rewritten(members(bundle) | dict.fromkeys(twins, b"x")))
    assert "a name occurs twice" in refusal(bundle)


def test_a_key_twice_in_the_manifest_is_refused(bundle):
    contents = members(bundle)
    contents["manifest.json"] = contents["manifest.json"].replace(b'"runs"', b'"runs": [], "runs"', 1)
    write(bundle, contents)
    assert "the key 'runs' occurs twice" in refusal(bundle)


def test_a_record_of_blanks_is_refused(bundle):
    write(bundle, rewritten(members(bundle) | {"runs/first/record.json": b" " * (2**26 + 1)}))
    assert "runs/first/record.json: it is larger than 64 MiB" in refusal(bundle)


@pytest.mark.parametrize("name", ["acc.csv", "README.md.provenance.json", "README.md"])
def test_packing_follows_no_link_beside_a_report(published, bundle, name):
    file = published.page.with_name(name)
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real"))
    result = perf("bundle", *run_directories(published), "--report", published.page, "--out", bundle)
    assert f"{file} is a link" in result.exception.message


def test_packing_follows_no_link_of_a_run(published, bundle):
    logs = published.record("first").parent / "logs"
    logs.rename(published.directory / "elsewhere")
    logs.symlink_to(published.directory / "elsewhere")
    perf("bundle", published.record("first").parent, "--out", bundle)
    assert not [name for name in members(bundle) if "/logs/" in name]


def test_a_name_that_the_check_would_refuse_is_not_packed(published, bundle):
    log = published.record("first").parent / "logs" / "\x1b[2K.log"
    log.write_text("")
    result = perf("bundle", *run_directories(published), "--out", bundle)
    assert "a name with characters that cannot be seen" in result.exception.message


def test_a_missing_file_is_found(bundle):
    contents = members(bundle)
    del contents["runs/first/events.jsonl"]
    write(bundle, contents)
    assert "'runs/first/events.jsonl': missing" in refusal(bundle)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "an absolute name"),
        ("runs/../../x", "leads out of the archive"),
        ("..", "leads out of the archive"),
        ("runs//x", "not a plain name"),
        ("./x", "not a plain name"),
        ("C:/x", "not a plain name"),
        ("runs\\x", "not a plain name"),
        ("x" * 401, "not a plain name"),
        ("runs/first/\x1b[2K.log", "characters that cannot be seen"),
        ("runs/first/\u202egol.log", "characters that cannot be seen"),
        ("runs/first/a\nb.log", "characters that cannot be seen"),
        ("runs/first/RECORD.json", "it occurs twice"),
        ("runs/first/record.json", "it occurs twice"),
        ("more", "not in manifest.json"),
    ],
)
def test_an_unsafe_name_is_refused_and_nothing_is_written(bundle, name, why):
    write(bundle, members(bundle), tarfile.TarInfo(name))
    assert why in refusal(bundle)


@pytest.mark.parametrize("name", ["runs/first/record.json", "reports/1/a b 中.md", "x.y"])
def test_a_plain_name_is_none(name):
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (tarfile.SYMTYPE, "a link to '/etc/passwd'"),
        (tarfile.LNKTYPE, "a link to '/etc/passwd'"),
        (tarfile.DIRTYPE, "a directory"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_what_is_no_file_is_refused(bundle, kind, why):
    entry = tarfile.TarInfo("runs/first/x")
    entry.type, entry.linkname = kind, "/etc/passwd"
    write(bundle, members(bundle), entry)
    assert why in refusal(bundle)


def test_an_absurd_size_is_refused_before_it_is_read(bundle):
    entry = tarfile.TarInfo("runs/first/x")
    entry.size = 2**50
    with gzip.open(bundle, "wb") as file:
        file.write(entry.tobuf())
    assert "bytes exceed the limits of a bundle" in refusal(bundle)


def test_a_header_that_fills_the_memory_is_refused(bundle):
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 2**40
    with gzip.open(bundle, "wb") as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
    assert "header is larger than 1 MiB" in refusal(bundle)


def test_an_archive_that_unpacks_to_too_much_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(bundle_check, "MAX_TOTAL_BYTES", 20_000)
    assert "bytes exceed the limits of a bundle" in refusal(bundle)


def test_too_many_files_are_refused(bundle, monkeypatch):
    monkeypatch.setattr(bundle_check, "MAX_FILES", 3)
    assert "more than 3 files" in refusal(bundle)


def test_something_after_the_end_is_refused(bundle):
    content = gzip.decompress(bundle.read_bytes())
    bundle.write_bytes(gzip.compress(content + b"hidden"))
    assert "data follows the end" in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(bundle_version=2), "bundle_version"),
        (lambda manifest: manifest.pop("files"), "files: Field required"),
        (lambda manifest: manifest["files"].append(manifest["files"][0]), "occurs twice"),
        (lambda manifest: manifest["reports"].append("runs/first/events.jsonl"), "is not below reports"),
        (lambda manifest: manifest["reports"].append("reports/../x"), "is not among the files"),
        (lambda manifest: manifest["files"].pop(1), "SHA256SUMS does not have"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(bundle, change, message):
    contents = members(bundle)
    manifest = json.loads(contents["manifest.json"])
    change(manifest)
    write(bundle, contents | {"manifest.json": json.dumps(manifest).encode()})
    assert message in refusal(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"no archive", gzip.compress(b"", mtime=0), gzip.compress(b"x" * 2000, mtime=0), b"\x1f\x8b\x08"]
)
def test_what_is_no_archive_is_refused(bundle, content):
    bundle.write_bytes(content)
    assert "is not a bundle" in refusal(bundle)


def test_a_bundle_that_does_not_exist_is_an_error(tmp_path):
    assert perf("bundle", "check", tmp_path / "absent.tar.gz").exception.exit_code == 2


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_lead_to_anything_but_an_answer(bundle, tmp_path, data):
    """Of the archive as it lies there, and of what is compressed in it."""
    content = bundle.read_bytes()
    inside = data.draw(st.booleans())
    plain = gzip.decompress(content) if inside else content
    start = data.draw(st.integers(0, min(len(plain), 4000)))
    piece = data.draw(st.binary(max_size=20))
    changed = plain[:start] + piece + plain[start + data.draw(st.integers(0, 600)) :]
    target = tmp_path / "changed.tar.gz"
    target.write_bytes(gzip.compress(changed, 1) if inside else changed)
    directory = tmp_path / "unpacked"
    directory.mkdir()
    with suppress(PerfError):
        bundle_check.unpack_checked(target, directory)
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "changed.tar.gz", "unpacked"}
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two keys, one with a passphrase, and the files of allowed signers that name the first, the second and neither."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("no ssh-keygen on this machine")
    directory = tmp_path_factory.mktemp("keys")
    for name, passphrase in (("lab", ""), ("locked", "secret")):
        options = ("-t", "ed25519", "-N", passphrase, "-C", "", "-f", directory / name)
        subprocess.run(["ssh-keygen", "-q", *options], check=True)
    (directory / "signers").write_text(f"lab@x,other@x {(directory / 'lab.pub').read_text()}")
    (directory / "others").write_text(f"eve@x {(directory / 'locked.pub').read_text()}")
    (directory / "expired").write_text(f'lab@x valid-before="20200101" {(directory / "lab.pub").read_text()}')
    (directory / "for-git").write_text(f'lab@x namespaces="git" {(directory / "lab.pub").read_text()}')
    (directory / "garbage").write_text("garbage")
    return directory


@pytest.fixture
def signed(pristine, keys, tmp_path):
    out = tmp_path / "signed.tar.gz"
    result = perf("bundle", pristine.record("first"), "--sign", keys / "lab", "--out", out)
    assert result.exception is None, result.output
    return out


def test_a_signed_bundle_names_its_signer(signed, keys):
    result = perf("bundle", "check", signed, "--signers", keys / "signers")
    assert "signed by lab@x" in result.output
    described = json.loads(perf("bundle", "check", signed, "--signers", keys / "signers", "--json").stdout)
    assert described["signer"] == "lab@x"
    assert json.loads(perf("bundle", "check", signed, "--json").stdout)["signer"] is None
    assert "no signature was checked" in perf("bundle", "check", signed).output


def test_ssh_verifies_a_signed_bundle(signed, keys, tmp_path):
    subprocess.run(["tar", "xzf", signed, "-C", tmp_path], check=True)
    options = ("-f", keys / "signers", "-I", "lab@x", "-n", "chipperf", "-s", tmp_path / "manifest.json.sig")
    content = (tmp_path / "manifest.json").read_bytes()
    subprocess.run(["ssh-keygen", "-Y", "verify", *options], input=content, check=True, capture_output=True)


def test_a_signed_bundle_is_the_same_every_time(signed, pristine, keys, tmp_path):
    again = tmp_path / "again.tar.gz"
    perf("bundle", pristine.record("first"), "--sign", keys / "lab", "--out", again)
    assert again.read_bytes() == signed.read_bytes()


def edited(contents):
    record = contents["runs/first/record.json"].replace(b'"remarks": []', b'"remarks": ["better"]')
    assert record != contents["runs/first/record.json"]
    return rewritten({name: each for name, each in contents.items() if name != SIGNATURE} | {RECORD: record})


@pytest.mark.parametrize(
    ("change", "signers", "message"),
    [
        (lambda contents: contents, "others", "was not signed by one of .*others: No principal matched"),
        (lambda contents: contents, "expired", "was not signed by one of .*key has expired"),
        (lambda contents: contents, "for-git", "is not what lab@x signed: .*not permitted for use in signature namesp"),
        (lambda contents: contents, "garbage", "was not signed by one of .*garbage:1: "),
        (lambda contents: edited(contents), "signers", "is not signed"),
        (
            lambda contents: edited(contents) | {SIGNATURE: contents[SIGNATURE]},
            "signers",
            "is not what lab@x signed: .*incorrect signature",
        ),
        (lambda contents: contents | {SIGNATURE: b""}, "signers", "was not signed by one of"),
        (lambda contents: contents | {SIGNATURE: b"x"}, "signers", "was not signed by one of .*missing header"),
    ],
)
def test_a_bundle_that_no_signer_signed_is_refused(signed, keys, change, signers, message):
    contents = change(members(signed))
    write(signed, contents)
    assert perf("bundle", "check", signed).exception is None
    result = perf("bundle", "check", signed, "--signers", keys / signers)
    assert result.exception.exit_code == 4
    assert re.search(message, result.exception.message)


@pytest.mark.parametrize(
    ("key", "message"), [("locked", "passphrase"), ("absent", "No such file"), ("signers", "cannot sign with")]
)
def test_a_key_that_cannot_sign_leaves_no_bundle(pristine, keys, tmp_path, key, message):
    out = tmp_path / "b.tar.gz"
    result = perf("bundle", pristine.record("first"), "--sign", keys / key, "--out", out)
    assert result.exception.exit_code == 2
    assert message in result.exception.message
    assert f"ssh-add {keys / key}" in result.exception.hint
    assert not list(tmp_path.iterdir())


def test_a_key_that_is_no_file_is_an_error(pristine, tmp_path):
    os.mkfifo(tmp_path / "key")
    result = perf("bundle", pristine.record("first"), "--sign", tmp_path / "key", "--out", tmp_path / "b.tar.gz")
    assert result.exception.exit_code == 2
    assert "key: it is not a regular file" in result.exception.message


def test_a_key_with_a_passphrase_signs_through_an_agent(pristine, keys, tmp_path, monkeypatch):
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            answer = tmp_path / "answer"
            answer.write_text("#!/bin/sh\necho secret\n")
            answer.chmod(0o700)
            wait_for(socket.exists)
            environment = os.environ | {"SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", keys / "locked"], check=True, env=environment)
            out = tmp_path / "b.tar.gz"
            result = perf("bundle", pristine.record("first"), "--sign", keys / "locked", "--out", out)
        finally:
            agent.terminate()
    assert result.exception is None, result.exception
    assert "signed by eve@x" in perf("bundle", "check", out, "--signers", keys / "others").output


@pytest.mark.parametrize("arguments", [("--sign", "lab"), ("--signers", "signers")])
def test_without_ssh_keygen_signing_and_verifying_say_so(pristine, signed, keys, tmp_path, monkeypatch, arguments):
    monkeypatch.setenv("PATH", str(tmp_path))
    option, name = arguments
    command = (pristine.record("first"), "--out", tmp_path / "b.tar.gz") if option == "--sign" else ("check", signed)
    result = perf("bundle", *command, option, keys / name)
    assert result.exception.exit_code == 2
    assert "ssh-keygen cannot be run" in result.exception.message
    assert "install OpenSSH's client" in result.exception.hint


def test_signers_that_are_no_file_are_an_error(signed, tmp_path):
    result = perf("bundle", "check", signed, "--signers", tmp_path / "absent")
    assert (result.exception.exit_code, "there is no file" in result.exception.message) == (2, True)
