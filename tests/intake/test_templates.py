"""Filling a template: names in double braces and nothing else, escaped in HTML, bounded while it grows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries.intake.templates import OUTPUT_LIMIT, TemplateProblem, fill, names, refuse_tags


@pytest.mark.parametrize(
    ("text", "context", "filled"),
    [
        ("Hola {{ name }}", {"name": "Ana"}, "Hola Ana"),
        ("{{name}}{{  name  }}", {"name": "x"}, "xx"),
        ("{{ order.lines.0 }} {{ order.total }}", {"order": {"lines": {"0": "a"}, "total": 7.5}}, "a 7.5"),
        ("{{ a }}", {"a": "{{ b }}"}, "{{ b }}"),  # what is filled in is not read again
        ("100 % {x}", {}, "100 % {x}"),
    ],
)
def test_names_are_replaced(text: str, context: dict[str, Any], filled: str) -> None:
    assert fill(text, context) == filled


def test_in_html_every_value_is_escaped() -> None:
    assert fill("<b>{{ x }}</b>", {"x": "<i a='\"'>&"}, escape=True) == "<b>&lt;i a=&#x27;&quot;&#x27;&gt;&amp;</b>"


@pytest.mark.parametrize(
    "text",
    [
        "{% if x %}",
        "{{ x|safe }}",
        "{{ x() }}",
        "{{ x[0] }}",
        "{{ __class__.x! }}",
        "{{",
        "}}",
        "{{ a b }}",
        "{{ 1+1 }}",
    ],
)
def test_anything_but_names_is_refused_when_it_is_stored(text: str) -> None:
    with pytest.raises(TemplateProblem) as refused:
        refuse_tags("text", text)
    assert refused.value.field == "text"


def test_parts_are_those_of_objects_and_never_attributes() -> None:
    assert fill("{{ x.upper }}", {"x": {"upper": "y"}}) == "y"
    assert (
        fill("{{ x.upper }}{{ y.real }}", {"x": "text", "y": 7}) == "NoneNone"
    )  # missing, which `render` refuses before


def test_a_long_value_used_often_is_never_built() -> None:
    with pytest.raises(TemplateProblem) as refused:
        fill("{{ x }}" * 10_000, {"x": "y" * 60_000})
    assert refused.value.field == "context"
    assert f"{OUTPUT_LIMIT:,}" in refused.value.reason


@given(st.text(), st.dictionaries(st.from_regex(r"[A-Za-z_]\w{0,5}", fullmatch=True), st.text()))
def test_text_without_names_stays_as_it_is(text: str, context: dict[str, str]) -> None:
    if not names(text):
        assert fill(text, context) == text
