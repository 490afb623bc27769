"""The verdict of a qualification: what may be claimed, and what not and why, from the files that its stages left."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING

from chipperf.bundle.bundle_check import read_manifest
from chipperf.cases.recorded_settings import check_with_case
from chipperf.cases.registry import find_case
from chipperf.contract.certificate import Certificate
from chipperf.contract.statement import Statement
from chipperf.documents.format import escape_markdown, in_unit, number, text_or_marker
from chipperf.durations import format_duration
from chipperf.errors import PerfError, RecordError
from chipperf.languages import Phrase, in_language, phrase
from chipperf.plugin.installed import REFERENCE_VENDOR
from chipperf.qualify.qualification import describe_software
from chipperf.records.checkpoints import digest_of
from chipperf.records.columns import BY_NAME
from chipperf.records.files import read_model
from chipperf.records.machine_limits import MachineLimits, above_peak
from chipperf.records.schema import Missing, Throughput
from chipperf.records.store import RECORD_NAME
from chipperf.verify.evidence import examine_evidence
from chipperf.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from chipperf.languages import Language
    from chipperf.qualify.qualification import Qualification, QualificationDirectory
    from chipperf.records.files import ModelT
    from chipperf.records.schema import Record

_HINT = "qualify again, with another --out"


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the verdict, and whether it may be claimed."""

    holds: bool
    text: Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class QualifyVerdict:
    """The verdict, the command that repeats it, and the time that it took of its budget."""

    title: Phrase
    claims: tuple[Claim, ...]
    command: str
    time: Phrase

    @property
    def may(self) -> list[Phrase]:
        """What may be claimed."""
        return [claim.text for claim in self.claims if claim.holds]

    @property
    def may_not(self) -> list[Phrase]:
        """What may not be claimed, and why."""
        return [claim.text for claim in self.claims if not claim.holds]


MAY = phrase("What may be claimed")
MAY_NOT = phrase("What may not be claimed, and why")
REPEAT = phrase("The command that repeats it")
NOTHING = phrase("Nothing.")


def judge_qualification(state: Qualification, directory: QualificationDirectory) -> QualifyVerdict:
    """Return the verdict on what the stages of a qualification left."""
    seconds = sum(stage.seconds for stage in state.stages)
    packed = _packed(state, directory)
    claims = (
        *_contract(state, directory, packed),
        *_limits(state, directory, packed),
        *_certificates(state, directory, packed),
        *_runs(state, directory, packed),
        *_stages(state),
        *_bundle(state, directory, packed),
    )
    return QualifyVerdict(
        title=phrase("Qualification of %(vendor)s", vendor=state.vendor),
        claims=claims,
        # What follows a line end would not look like a part of the command.
        command=visible(state.command).replace("\n", "\\n"),
        time=phrase(
            "%(seconds)s of a budget of %(budget)s, in %(sessions)s sessions.",
            seconds=format_duration(round(seconds)),
            budget=format_duration(state.budget_s),
            sessions=state.sessions,
        ),
    )


def verdict_markdown(verdict: QualifyVerdict, language: Language) -> str:
    """Return the verdict as a page in Markdown."""
    lines = [f"# {_md(verdict.title, language)}", ""]
    for title, texts in ((MAY, verdict.may), (MAY_NOT, verdict.may_not)):
        lines += [f"## {_md(title, language)}", ""]
        lines += [f"- {_md(text, language)}" for text in texts or [NOTHING]]
        lines += [""]
    lines += [f"## {_md(REPEAT, language)}", "", "```sh", verdict.command, "```", "", _md(verdict.time, language)]
    return "\n".join(lines) + "\n"


def _md(text: Phrase, language: Language) -> str:
    return escape_markdown(in_language(text, language))


@dataclass(frozen=True, slots=True)
class _Packed:
    """What the manifest of the checked bundle says: the digests of its files, and whether a signature is there."""

    digests: frozenset[str]
    signed: bool


def _packed(state: Qualification, directory: QualificationDirectory) -> _Packed | None:
    """Return what the bundle has; ``None`` if there is none, or not the one that was checked."""
    if state.stage("bundle").state != "completed":
        return None
    with suppress(PerfError, OSError):
        if digest_of(directory.bundle).sha256 == state.bundle_sha256:
            manifest, signed = read_manifest(directory.bundle)
            return _Packed(frozenset(each.sha256 for each in manifest.files), signed)
    return None


def _stranger(
    state: Qualification, packed: _Packed | None, file: Path, *, vendor: str, software: str, made_at: str
) -> Phrase | None:
    """Return why a file is not what this qualification made, or ``None``.

    ``made_at`` is a time in UTC, as ISO 8601 writes it to the second.
    """
    if vendor != state.vendor:
        return phrase("it is of vendor %(vendor)s", vendor=vendor)
    if software != state.software:
        return phrase("it is of %(software)s", software=software)
    if made_at < _second(state.created_at):
        return phrase("it is older than the qualification")
    if packed and digest_of(file).sha256 not in packed.digests:
        return phrase("it was changed after it was packed into the bundle")
    return None


def _second(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="seconds")


def _contract(state: Qualification, directory: QualificationDirectory, packed: _Packed | None) -> Iterator[Claim]:
    what = phrase("Contract")
    found = _read(Statement, directory.statement, what)
    if isinstance(found, Claim):
        yield found
        return
    if found is None:
        yield Claim(False, phrase("Contract: no level, because there is no statement"))
        return
    software = describe_software(f"{found.distribution} {found.distribution_version}", found.chipperf_version)
    made = {"vendor": found.vendor, "software": software, "made_at": found.finished_utc}
    if why := _stranger(state, packed, directory.statement, **made):
        yield _refused(what, why)
    elif names := found.strange_checks:
        yield Claim(False, phrase("Contract: its results are not those of the checks: %(names)s", names=names))
    else:
        yield from (Claim(each.claimed, phrase("Contract: %(level)s", level=each.phrase)) for each in found.levels)


def _read(model: type[ModelT], file: Path, what: Phrase) -> ModelT | Claim | None:
    """Read what a stage left, ``None`` if it left nothing; what cannot be read is no claim."""
    try:
        return read_model(model, file, hint=_HINT) if file.exists() else None
    except RecordError as error:
        return _refused(what, error.message)


def _refused(what: Phrase, why: Phrase | str) -> Claim:
    return Claim(False, phrase("%(what)s: %(why)s", what=what, why=why))


def _limits(state: Qualification, directory: QualificationDirectory, packed: _Packed | None) -> Iterator[Claim]:
    what, measured, refused = phrase("Limits of the machine"), list[MachineLimits](), list[Claim]()
    for file in sorted(directory.path.glob("limits-*/limits.json")):
        read = _read(MachineLimits, file, what)
        if isinstance(read, Claim):
            refused.append(read)
        elif read and (strange := _stranger(state, packed, file, **_origin(read))):
            refused.append(_refused(what, strange))
        elif read:
            measured.append(read)
    yield from refused
    if not measured:
        if not refused:
            yield Claim(False, phrase("Limits of the machine: none were measured"))
        return
    found = max(measured, key=lambda each: _second(each.created_at))
    for card in found.cards:
        excessive = {
            f"products {precision}"
            for precision, each in card.products.items()
            if above_peak(each.rate, each.peak_flops_per_s, each.peak_source, precision)
        }
        for name, rate in card.rates():
            if isinstance(rate, Throughput):
                scale, unit = (1e12, "TFLOP/s") if name.startswith("products") else (1e9, "GB/s")
                shown = f"{text_or_marker(number(rate.median / scale), 'en')} {unit}"
                text = phrase("Limit of card %(card)s, %(name)s: %(rate)s", card=card.card.rank, name=name, rate=shown)
                yield Claim(name not in excessive, text)
            elif rate.missing != "not_applicable":
                why = rate.reason or rate.missing
                text = phrase("Limit of card %(card)s, %(name)s: %(why)s", card=card.card.rank, name=name, why=why)
                yield Claim(False, text)
    if isinstance(found.all_reduce, Missing):
        if found.all_reduce.missing != "not_applicable":
            yield Claim(False, phrase("Limit of the all-reduce: %(why)s", why=found.all_reduce.reason))
    else:
        best = found.all_reduce.best
        text = phrase(
            "Limit of the all-reduce over %(ranks)s ranks: %(rate)s GB/s of bus bandwidth at %(size)s bytes",
            ranks=found.all_reduce.ranks,
            rate=number(best.rate.median / 1e9),
            size=best.size_bytes,
        )
        yield Claim(True, text)
    yield from (Claim(False, phrase("Limits: %(why)s", why=text)) for text in found.warnings)


def _origin(made: MachineLimits | Record) -> dict[str, str]:
    plugin = made.vendor.plugin
    software = describe_software(f"{plugin.name} {plugin.version}", made.chipperf_version)
    return {"vendor": made.vendor.name, "software": software, "made_at": _second(made.created_at)}


def _certificates(state: Qualification, directory: QualificationDirectory, packed: _Packed | None) -> Iterator[Claim]:
    left = []
    for case in state.cases:
        what = phrase("First steps of %(case)s against the CPU reference", case=case)
        found = _read(Certificate, directory.certificate(case), what)
        if isinstance(found, Claim):
            yield found
            continue
        own = [each for each in found.comparisons if each.case == case] if found else []
        if not found or not any(each.steps for each in own):
            left.append(case)
            continue
        software = describe_software(found.distribution, found.chipperf_version)
        made = {"vendor": found.vendor, "software": software, "made_at": _second(found.created_at)}
        if why := _stranger(state, packed, directory.certificate(case), **made):
            yield _refused(what, why)
        else:
            for each in own:
                text = phrase("First steps against the CPU reference: %(summary)s", summary=each.summary)
                yield Claim(each.within, text)
    if left:
        yield Claim(False, phrase("First steps against the CPU reference, not compared: %(names)s", names=left))


def _runs(state: Qualification, directory: QualificationDirectory, packed: _Packed | None) -> Iterator[Claim]:
    records = []
    for path, record in directory.records():
        records.append(record)
        yield from _of_run(state, packed, path, record)
    made = {(each.case.name, each.precision.requested, each.topology.label) for each in records}
    left = [each.name for each in state.candidates if (each.case, each.precision, each.topology) not in made]
    if left:
        yield Claim(False, phrase("Runs for which the budget left no time: %(names)s", names=left))
    if any(record.dataset.is_sample for record in records):
        yield Claim(False, phrase("Scores of a benchmark: runs used a generated sample dataset"))
    if state.preset != "full":
        yield Claim(False, phrase("Figures of the whole case: the preset was %(preset)s", preset=state.preset))
    if any(record.limits.shortened for record in records):
        yield Claim(False, phrase("Convergence over the whole schedule: a budget ended the runs"))
    if any(record.kind == "simulated" for record in records):
        yield Claim(False, phrase("Anything about a product: devices were simulated"))
    if state.vendor == REFERENCE_VENDOR:
        yield Claim(False, phrase("Anything about an accelerator: this is the CPU reference"))


def _of_run(state: Qualification, packed: _Packed | None, path: Path, record: Record) -> Iterator[Claim]:
    name = f"{record.case.name} {record.precision.requested} {record.topology.label}"
    if record.status.state != "completed":
        said = record.status.failure.message if record.status.failure else record.status.state
        yield Claim(False, phrase("Run %(name)s: %(why)s", name=name, why=said))
        return
    why = _stranger(state, packed, path / RECORD_NAME, **_origin(record))
    if not why and record.case.preset != state.preset:
        why = phrase("its preset is %(preset)s", preset=record.case.preset)
    planned = [(each.case, each.precision, each.topology) for each in state.candidates]
    if not why and (record.case.name, record.precision.requested, record.topology.label) not in planned:
        why = phrase("it was not planned")
    if why:
        yield _refused(phrase("Run %(name)s", name=name), why)
        return
    case = None
    with suppress(PerfError):
        case = find_case(record.case.name)
    examined = examine_evidence(record, path)
    findings = [*(finding.text for finding in check_with_case(record, case)), *examined.contradictions]
    for finding in findings:
        yield Claim(False, phrase("Run %(name)s: implausible: %(why)s", name=name, why=finding))
    if examined.lacks_evidence:
        yield Claim(False, phrase("Run %(name)s: its events are missing, so nothing confirms it", name=name))
        return
    core = record.metrics.p_core
    if isinstance(core, Throughput):
        mfu = BY_NAME["mfu"]
        share = in_unit(mfu.value(record), mfu.unit, as_percent=True)
        rate, samples = number(core.median), case.report.sample_noun if case else phrase("samples")
        if isinstance(share, Missing):
            text = phrase("Run %(name)s: p_core %(rate)s %(samples)s per second", name=name, rate=rate, samples=samples)
        else:
            text = phrase(
                "Run %(name)s: p_core %(rate)s %(samples)s per second, %(share)s of the machine's measured products",
                name=name,
                rate=rate,
                samples=samples,
                share=share,
            )
        yield Claim(not findings, text)
    else:
        yield Claim(False, phrase("Run %(name)s: no p_core, %(why)s", name=name, why=str(core)))


def _stages(state: Qualification) -> Iterator[Claim]:
    for stage in state.stages:
        if stage.state == "out_of_time":
            text = phrase(
                "Stage %(name)s: it had no more than %(time)s", name=stage.name, time=format_duration(stage.seconds)
            )
            yield Claim(False, text)
        elif stage.state == "failed":
            yield Claim(False, phrase("Stage %(name)s: %(why)s", name=stage.name, why=stage.error or "it failed"))
        elif stage.state != "completed":
            yield Claim(False, phrase("Stage %(name)s: not done yet", name=stage.name))


def _bundle(state: Qualification, directory: QualificationDirectory, packed: _Packed | None) -> Iterator[Claim]:
    if state.stage("bundle").state != "completed" or not directory.bundle.exists():
        return
    name, digest = directory.bundle.name, state.bundle_sha256
    if packed is None:
        yield Claim(False, phrase("The bundle %(name)s: it was changed after it was checked", name=name))
    elif packed.signed:
        text = phrase("The bundle %(name)s is verified and signed; its SHA-256 is %(digest)s", name=name, digest=digest)
        yield Claim(True, text)
    else:
        text = phrase("The bundle %(name)s is verified; its SHA-256 is %(digest)s", name=name, digest=digest)
        yield Claim(True, text)
        yield Claim(False, phrase("Who made the bundle: it is not signed, --sign KEY signs it"))
