"""Which template is rendered, and what its author is told when it is broken."""

from __future__ import annotations

import re
import resource
from types import SimpleNamespace

import pytest
from chipperf.errors import PerfError, UsageError
from chipperf.languages import LANGUAGES
from chipperf.report import templating
from chipperf.report.render import render_report
from factory import make_record
from jinja2.exceptions import SecurityError


@pytest.fixture
def places(tmp_path):
    """Return the user's and the vendor's template directory, both empty."""
    user, vendor = tmp_path / "user", tmp_path / "vendor"
    user.mkdir()
    vendor.mkdir()
    return user, vendor


def render(user, vendor):
    return render_report([make_record()], user_templates=user, vendor_templates=vendor)


def body(page):
    """Return the text before core's list of templates that are not its own."""
    return re.split(r"\n\n#### (?:模板|Templates)\n", page)[0]


def test_templates_are_looked_for_by_place_and_then_by_name(places):
    user, vendor = places
    best_last = [
        vendor / "report.md.j2",
        vendor / "resnet50.md.j2",
        user / "report.md.j2",
        user / "resnet50.md.j2",
    ]
    assert "### 许可证" in render(user, vendor)
    for number, template in enumerate(best_last):
        template.write_text(f"template {number}")
        assert body(render(user, vendor)) == f"template {number}"


def test_templates_of_other_cases_do_not_count(places):
    user, vendor = places
    (user / "mobilenetv2.md.j2").write_text("wrong")
    assert render(user, vendor) != "wrong"


@pytest.mark.parametrize("place", [0, 1], ids=["user", "vendor"])
@pytest.mark.parametrize(
    ("name", "new"), [("report.en.md.j2", "report.md.j2"), ("resnet50.zh.md.j2", "resnet50.md.j2")]
)
def test_a_template_for_one_language_is_refused_and_the_error_says_how_to_rename_it(places, place, name, new):
    (places[place] / name).write_text("of an older chipperf")
    with pytest.raises(UsageError, match=f"{name} is for one language") as caught:
        render(*places)
    assert f"rename it to {new}, " in caught.value.hint


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_template_says_its_own_and_cores_texts_in_the_reports_language(places, language):
    user, vendor = places
    (user / "report.md.j2").write_text(
        '{{ both("**结果**", "**result**") }} {{ _("Results") }} {{ _("not %(dataset)s", dataset="a|b") }} '
        '{{ pgettext("list", ", ") }} {{ _("not in any translation") }} '
        "{% trans cards=2 %}{{ cards }} of core{% endtrans %}"
    )
    text = render_report([make_record()], language=language, user_templates=user)
    assert body(text) == {
        "zh": r"**结果** 运行情况 不是 a\|b 、 not in any translation 2 of core",
        "en": r"**result** Results not a\|b ,  not in any translation 2 of core",
    }.get(language, body(text))


def test_a_template_overrides_blocks_of_core_and_keeps_the_rest(places):
    user, vendor = places
    (vendor / "report.md.j2").write_text(
        '{% extends "core/report.md.j2" %}'
        "{% block licence %}\nMIT\n{% endblock %}"
        "{% block notes %}{{ super() }}  - `raw` {{ view.case ~ '|' }}\n{% endblock %}"
    )
    text = render(user, vendor)
    assert "MIT" in text
    assert "Apache" not in text
    assert "标记：“/”" in text
    assert r"  - `raw` resnet50\|" in text


def test_a_user_extends_the_vendors_template_and_includes_a_file_of_their_own(places):
    user, vendor = places
    (vendor / "report.md.j2").write_text("vendor {% block middle %}{% endblock %}")
    (user / "mine.md.j2").write_text("mine")
    (user / "report.md.j2").write_text(
        '{% extends "vendor/report.md.j2" %}{% block middle %}{% include "mine.md.j2" %}{% endblock %}'
    )
    assert body(render(user, vendor)) == "vendor mine"


def test_a_changed_template_is_read_again(places):
    user, vendor = places
    template = user / "report.md.j2"
    template.write_text("first")
    assert body(render(user, vendor)) == "first"
    template.write_text("the second, of another length")
    assert body(render(user, vendor)) == "the second, of another length"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ vieww.case }}", r"report\.md\.j2, line 2: 'vieww' is undefined"),
        ("{{ view.cas }}", r"report\.md\.j2, line 1: .*has no attribute 'cas'"),
        ("{% for %}", r"report\.md\.j2, line 1: "),
        ("{{ view.case | nofilter }}", r"report\.md\.j2, line 1: No filter named 'nofilter'"),
        ("{{ view.case | number }}", r"report\.md\.j2, line 1: "),
        ('{% extends "core/nothing.j2" %}', r"'core/nothing\.j2', which .*report\.md\.j2, line 1 names"),
    ],
)
def test_a_broken_template_is_named_with_line_and_cause(places, source, message):
    user, vendor = places
    (user / "report.md.j2").write_text(source)
    with pytest.raises(PerfError) as caught:
        render(user, vendor)
    assert re.search(message, caught.value.message)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "source",
    [
        "{{ cycler.__init__.__globals__.os.system('touch /tmp/x') }}",
        "{{ view.rows[0].record.__class__.__mro__ }}",
        "{{ view.rows[0].record.parse_raw('cos\\nsystem\\n', content_type='application/pickle', allow_pickle=true) }}",
        "{{ view.rows[0].record.parse_file('/etc/passwd') }}",
        "{{ view.rows[0].record.metrics.model_copy() }}",
        "{{ view.environment.update(cpu=1) }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ view.rows[0].case.data.ensure_sample('/tmp/x') }}",
        "{{ view.rows[0].case.load_workload() }}",
        "{{ view.rows[0].case | attr('load_workload') }}",
    ],
)
def test_a_template_reads_values_and_nothing_else(places, source):
    user, vendor = places
    (user / "report.md.j2").write_text(source)
    with pytest.raises(PerfError, match=r"report\.md\.j2, line 1: .*(unsafe|not safely callable|too large)"):
        render(*places)


@pytest.mark.parametrize("values", [(1, render), (render, 1), (1, str)])
def test_what_one_object_shows_opens_no_other_of_its_type(values):
    template = templating.SandboxedTemplates(None, None).from_string(
        "{% for each in objects %}{{ each.value }}{% endfor %}"
    )
    with pytest.raises(SecurityError, match="unsafe"):
        template.render(objects=[SimpleNamespace(value=value) for value in values])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "it has computed for 0.2 s"),
        ("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "more than 10000000 characters"),
        ("{{ 'x' * 10000000000 }}", "it takes too much memory"),
        ("{{ 'x' | center(10000000000) }}", "it takes too much memory"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ range(10000000) }}", "Range too big"),
        (
            "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
            "a factor has more than 100000 bits",
        ),
    ],
)
def test_a_template_ends(places, monkeypatch, source, message):
    monkeypatch.setattr(templating, "_MAX_CPU_S", 0.2 if "0.2" in message else 60)
    monkeypatch.setattr(templating, "_MAX_PAGE_CHARACTERS", 10**7)
    user, vendor = places
    (user / "report.md.j2").write_text(source)
    with pytest.raises(PerfError, match=message) as caught:
        render(*places)
    assert "report.md.j2" in caught.value.message
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_templates_that_are_not_cores_are_named_whatever_they_say(places):
    user, vendor = places
    (vendor / "report.md.j2").write_text("vendor {% block middle %}{% endblock %}")
    (user / "mine.md.j2").write_text("mine")
    (user / "report.md.j2").write_text(
        '{% extends "vendor/report.md.j2" %}{% block middle %}{% include "mine.md.j2" %}{% endblock %}'
    )
    for _ in range(2):
        listed = render(user, vendor).split("#### 模板")[1]
        names = re.findall(r"^- (\S+)$", listed, re.MULTILINE)
        assert names == ["user/mine.md.j2", "user/report.md.j2", "vendor/report.md.j2"]
    assert "#### 模板" not in render_report([make_record()])


def test_a_template_directory_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match="absent does not exist"):
        render_report([make_record()], user_templates=tmp_path / "absent")


def test_core_may_be_found_by_any_path(tmp_path, monkeypatch):
    """``sys.path`` may hold ``..``."""
    (tmp_path / "other").mkdir()
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "report.md.j2").write_text("core's")
    monkeypatch.setattr(templating, "CORE_TEMPLATES", tmp_path / "other" / ".." / "templates")
    environment = templating.SandboxedTemplates(None, None)

    assert environment.name_with_place(environment.get_template("report.md.j2")) == "core/report.md.j2"
    assert environment.foreign == set()
