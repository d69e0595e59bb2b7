"""How vendors' answers are read where no vendor is special."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.answers import by_status, json_error, json_object, retry_after, wait_seconds
from channels.base import ContentRefused, InDoubt, Misconfigured, SendError, Throttled, Transient
from channels.http import HttpResponse

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def response(status: int = 200, body: bytes = b"", **headers: str) -> HttpResponse:
    """An answer."""
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Mon, 23 Nov 2026 12:01:30 GMT", 90),
        ("Mon, 23 Nov 2026 12:01:30 -0000", 90),
        ("Mon, 23 Nov 2026 13:01:30 +0100", 90),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        ("Mon, 23 Nov 2099 11:00:00 GMT", 86_400),
        ("9" * 5_000, 86_400),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1e3", None),
        ("٣", None),
        ("Mon, 99 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_a_wait_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}, NOW) == seconds


def test_no_wait_is_none() -> None:
    assert retry_after({}) is None


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,5} \d\d:\d\d:\d\d (GMT|[+-]\d{4})"))
def test_whatever_a_vendor_calls_a_wait_is_none_or_within_a_day(value: str) -> None:
    found = retry_after({"Retry-After": value})
    assert found is None or 0 <= found <= 86_400


@given(st.floats() | st.integers() | st.text() | st.none() | st.booleans())
def test_a_number_of_seconds_is_none_or_within_a_day(value: object) -> None:
    found = wait_seconds(value)
    assert found is None or 0 <= found <= 86_400
    assert not isinstance(value, bool | str) or found is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, Misconfigured),
        (400, ContentRefused),
        (401, Misconfigured),
        (402, Misconfigured),
        (403, Misconfigured),
        (404, Misconfigured),
        (405, Misconfigured),
        (407, Misconfigured),
        (408, Transient),
        (409, ContentRefused),
        (413, ContentRefused),
        (422, ContentRefused),
        (429, Throttled),
        (500, Transient),
        (599, Transient),
    ],
)
def test_a_bare_status_has_a_meaning(status: int, expected: type[SendError]) -> None:
    error = by_status(response(status))
    assert (type(error), error.code) == (expected, f"http_{status}")


def test_the_vendors_own_code_and_words_are_shown() -> None:
    error = by_status(response(422), "too long", "E17")
    assert (error.code, error.detail) == ("E17", "too long")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_in_doubt_as_a_success_and_empty_as_a_refusal(body: bytes) -> None:
    with pytest.raises(InDoubt):
        json_object(response(body=body))
    assert json_error(response(400, body)) == {}
