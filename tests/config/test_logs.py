"""Logs and Sentry: what happened is told, by ids; recipients, bodies and secrets never leave the process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
import structlog
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from config import logs

CANARY = "canary-7f3a"


class Kept(Transport):
    """Keeps what would go to Sentry."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    @property
    def text(self) -> str:
        return b"\n".join(envelope.serialize() for envelope in self.envelopes).decode()


@pytest.fixture
def sentry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Sentry set up as in production, its network cut off."""
    kept = Kept()
    real = sentry_sdk.init
    monkeypatch.setattr(sentry_sdk, "init", lambda **options: real(**options, transport=kept))
    logs.watch("https://key@sentry.example/1", "test", "1.2.3")
    yield kept
    sentry_sdk.get_client().close()
    real()


def test_an_error_reaches_sentry_without_what_it_was_about(sentry: Kept) -> None:
    def fails(text: str, to: str) -> None:
        secret = f"password {text}"
        raise ValueError(f"could not parse the {len(secret)} characters")

    try:
        fails(CANARY, f"+569{CANARY}")
    except ValueError:
        sentry_sdk.set_extra("recipient", CANARY)
        sentry_sdk.set_extra("message_id", "01990000")
        sentry_sdk.capture_exception()
    assert "could not parse" in sentry.text
    assert "01990000" in sentry.text
    assert CANARY not in sentry.text.replace('raise ValueError(f"could', "")


def test_the_body_and_the_key_of_a_request_do_not_reach_sentry(sentry: Kept) -> None:
    event = {
        "message": "request failed",
        "request": {
            "url": "https://chaski.example/api/v1/messages",
            "data": {"text": CANARY},
            "query_string": f"to={CANARY}",
            "cookies": {"sessionid": CANARY},
            "headers": {"Authorization": f"Bearer {CANARY}", "Host": "chaski.example"},
        },
    }
    sentry_sdk.capture_event(event)  # type: ignore[arg-type]
    assert "request failed" in sentry.text
    assert "chaski.example" in sentry.text
    assert CANARY not in sentry.text


def test_without_a_dsn_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_sdk, "init", lambda **_: pytest.fail("Sentry was set up"))
    logs.watch("", "test", "1.2.3")


def test_a_log_line_is_one_event_with_fields_and_the_request_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.handlers[:]
    try:
        logs.set_up("json", "1.2.3")
        structlog.contextvars.bind_contextvars(request_id="r-1")
        structlog.get_logger("deliveries.test").info("something_happened", message_id="m-1", to=CANARY, text=CANARY)
        logging.getLogger("deliveries.plain").warning("from a %s", "library")
    finally:
        structlog.contextvars.clear_contextvars()
        logging.root.handlers[:] = before
        logs.set_up("console", "")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    expected = {"event": "something_happened", "message_id": "m-1", "request_id": "r-1", "release": "1.2.3"}
    assert expected.items() <= first.items()
    assert (first["to"], first["text"]) == ("[redacted]", "[redacted]")
    assert second["event"] == "from a library"


def test_a_request_keeps_the_id_it_came_with_unless_that_could_break_a_log(client: Any) -> None:
    def answered(given: str) -> str:
        headers = {"X-Request-Id": given} if given else {}
        found: str = client.get("/health/live", headers=headers)["X-Request-Id"]
        return found

    assert answered("order-7:a.b_c") == "order-7:a.b_c"
    assert len(answered("")) == 32
    assert answered("two\u2028lines") != "two\u2028lines"
    assert answered("x" * 200) != "x" * 200
