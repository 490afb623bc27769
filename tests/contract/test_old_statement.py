"""What earlier versions said of a plugin: statements and certificates, which are published beside it."""

from __future__ import annotations

from chipperf.contract.certificate import Certificate
from chipperf.contract.statement import Statement
from kept_files import V010, written_in

CONTRACT = V010 / "contract"


def test_statement_is_read() -> None:
    written = written_in(CONTRACT / "statement.json")

    statement = Statement.model_validate(written)

    assert statement.model_dump(mode="json") == written
    assert statement.succeeded
    assert statement.line == "contract 1.0 · L0 23/23"
    assert (statement.vendor, statement.chipperf_version) == ("cpu", "0.1.0")


def test_certificate_is_read() -> None:
    written = written_in(CONTRACT / "certificate" / "equivalence.json")

    certificate = Certificate.model_validate(written)

    assert certificate.model_dump(mode="json", exclude_unset=True) == written
    assert (certificate.vendor, certificate.simulated) == ("cpu", False)
    [comparison] = certificate.comparisons
    assert comparison.case == "mobilenetv2"
