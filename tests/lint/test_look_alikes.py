"""Characters that look like others, or like nothing."""

from __future__ import annotations

import pytest
from reports import HEADERS, good, nvidia, put, run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (nvidia(good(label="\u0410100单机8卡（1x8）")), "U+0410 in '\u0410100单机8卡（1x8）' looks like A"),
        (nvidia(good(label="\uff21100单机8卡（1x8）")), "U+FF21 in '\uff21100单机8卡（1x8）' looks like A"),
        (nvidia(good(label="A\u200b100单机8卡（1x8）")), r"U+200B in 'A\u200b100单机8卡（1x8）' looks like nothing"),
        (nvidia(good(precision="f\u044032")), "U+0440 in 'f\u044032' looks like p"),
        (nvidia(header=(*HEADERS[:7], "\u0430cc", "mem")), "U+0430 in '\u0430cc' looks like a"),
        (nvidia(facts={"加速卡型号": "NVIDIA \u0391100-SXM4-40GB"}), "U+0391 in 'NVIDIA \u0391100-SXM4-40GB'"),
    ],
)
def test_look_alike_in_a_name_is_an_error_with_its_place(tmp_path, text, expected):
    found = [each for each in run(put(tmp_path, text)).findings if each.rule == "L00"]

    assert [each.message[: len(expected)] for each in found] == [expected]
    assert found[0].line[found[0].place.column - 1] == chr(int(expected[2:6], 16))


def test_full_width_punctuation_and_words_are_what_they_look_like(tmp_path):
    assert run(put(tmp_path, nvidia(good(label="A100单机8卡（1×8）"))), select="L05").findings == []
