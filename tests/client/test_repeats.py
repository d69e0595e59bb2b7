"""What the client does when network or service fail: repeats with the same key, or says what happened."""

from __future__ import annotations

import email.utils
import socket
import time
from typing import Any

import pytest

import chaski
from chaski.errors import Unavailable
from chaski.transport import pause_after, retry_after
from chaski.wire import Answer


def keys_and_bodies(service: Any) -> set[tuple[str, bytes]]:
    return {(asked.key, asked.body) for asked in service.asked}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_passing_refusal_is_repeated_with_the_same_key_and_body(service, client, refuses, status):
    service.replies = [refuses(status, "busy"), refuses(status, "busy")]
    assert client.send("sms", "+56912345678", text="hola").text == "hola"
    assert len(service.asked) == 3
    assert len(keys_and_bodies(service)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_will_not_pass_by_itself_is_not_repeated(service, client, refuses, status):
    service.replies = [refuses(status, "no")]
    with pytest.raises(chaski.ChaskiError):
        client.send("sms", "+56912345678", text="hola")
    assert len(service.asked) == 1


def test_a_reset_in_the_middle_of_the_answer_is_repeated_with_the_same_key(service, client, says):
    service.replies = [says(202, {"id": "x" * 5000, "status": "queued"}, cut=True)]
    assert client.send("sms", "+56912345678", text="hola").status == "queued"
    assert len(service.asked) == 2
    assert len(keys_and_bodies(service)) == 1


def test_no_answer_in_time_is_repeated_with_the_same_key(service, says):
    service.replies = [says(delay=1.0)]
    client = chaski.Client(service.url, "ck_test_abc", timeout=(2, 0.2))
    assert client.send("sms", "+56912345678", text="hola", key="shipped:1").key == "shipped:1"
    assert [asked.key for asked in service.asked] == ["shipped:1", "shipped:1"]


def test_a_service_that_never_answers_is_both_unavailable_and_a_timeout(service, says):
    service.otherwise = lambda _: says(delay=0.6)
    client = chaski.Client(service.url, "ck_test_abc", timeout=(2, 0.1), retries=1)
    with pytest.raises(chaski.NoAnswer, match="same key") as caught:
        client.send("sms", "+56912345678", text="hola")
    assert isinstance(caught.value, chaski.Unavailable)
    assert isinstance(caught.value, chaski.Timeout)
    assert caught.value.retryable
    assert caught.value.attempts == 2


def test_a_refused_connection_names_the_url(free_port):
    client = chaski.Client(f"http://127.0.0.1:{free_port}", "ck_test_abc", retries=1)
    with pytest.raises(chaski.Unavailable, match=f"http://127.0.0.1:{free_port}/api/v1/messages") as caught:
        client.send("sms", "+56912345678", text="hola")
    assert caught.value.code == "unreachable"
    assert caught.value.attempts == 2


def test_a_certificate_that_cannot_be_trusted_is_not_tried_again(service):
    client = chaski.Client(service.url.replace("http:", "https:"), "ck_test_abc", timeout=1)
    with pytest.raises(chaski.Unavailable) as caught:
        client.get("1")
    assert (caught.value.code, caught.value.retryable, caught.value.attempts) == ("tls", False, 1)


def test_retry_after_is_honoured(service, client, refuses):
    reply = refuses(429, "rate_limited")
    reply.headers["Retry-After"] = "1"
    service.replies = [reply]
    begun = time.monotonic()
    client.send("sms", "+56912345678", text="hola")
    assert time.monotonic() - begun >= 1.0


def test_a_wait_that_does_not_fit_the_deadline_is_told_instead_of_begun(service, client, refuses):
    reply = refuses(429, "rate_limited")
    reply.headers["Retry-After"] = "3600"
    service.replies = [reply]
    with pytest.raises(chaski.RateLimited, match="text of rate_limited") as caught:
        client.send("sms", "+56912345678", text="hola")
    assert caught.value.retry_after == 3600
    assert caught.value.retryable
    assert len(service.asked) == 1


def test_the_deadline_ends_a_call_with_all_its_repeats(service, says):
    service.otherwise = lambda _: says(delay=0.5)
    client = chaski.Client(service.url, "ck_test_abc", timeout=(2, 0.4), retries=50, deadline=0.7)
    begun = time.monotonic()
    with pytest.raises(chaski.NoAnswer):
        client.get("1")
    assert time.monotonic() - begun < 1.5


def test_repeats_can_be_switched_off(service, refuses):
    service.replies = [refuses(503, "database_away")]
    with pytest.raises(chaski.Unavailable) as caught:
        chaski.Client(service.url, "ck_test_abc", retries=0).get("1")
    assert caught.value.code == "database_away"
    assert len(service.asked) == 1


def test_a_cancel_whose_answer_was_lost_is_not_reported_as_a_conflict(service, client, says, refuses):
    canceled = {"id": "1", "status": "canceled", "final": True}
    service.replies = [
        says(200, {"pad": "x" * 999}, cut=True),
        refuses(409, "not_cancelable"),
        says(200, canceled),
    ]
    assert client.cancel("1").status == "canceled"


def test_a_cancel_that_came_too_late_is_a_conflict_even_after_a_repeat(service, client, says, refuses):
    service.replies = [
        refuses(503, "busy"),
        refuses(409, "not_cancelable"),
        says(200, {"id": "1", "status": "sent"}),
    ]
    with pytest.raises(chaski.Conflict, match="not_cancelable"):
        client.cancel("1")


def test_pauses_grow_and_stay_within_their_bounds():
    longest = [max(pause_after(n, Unavailable()) or 0 for _ in range(200)) for n in (1, 2, 3, 4, 9)]
    assert longest == sorted(longest)
    assert 0.1 < longest[0] <= 0.2
    assert 2.5 < longest[-1] <= 5.0
    assert pause_after(1, Answer(200)) is None


def test_retry_after_holds_seconds_or_a_date():
    assert retry_after("7") == 7.0
    assert 58 <= (retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) or 0) <= 60
    assert retry_after(email.utils.formatdate(time.time() - 60, usegmt=True)) == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
