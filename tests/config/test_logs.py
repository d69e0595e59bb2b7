"""Logs and Sentry: what happened is told, by ids; recipients, bodies and secrets never leave the process."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
import structlog

from config import logs

ROOT = Path(__file__).parents[2]
CANARY = "canary-7f3a"


#: Sets Sentry up as in production, its network cut off, lets something fail, and prints what would have been sent. In a
#: process of its own: Sentry changes the standard library of the process that it watches.
WATCHED = """
import sys
import sentry_sdk
from sentry_sdk.transport import Transport
from config import logs

class Printed(Transport):
    def capture_envelope(self, envelope):
        sys.stdout.buffer.write(envelope.serialize())

real = sentry_sdk.init
sentry_sdk.init = lambda **options: real(**options, transport=Printed())
logs.watch("https://key@sentry.example/1", "test", "1.2.3")
canary = sys.argv[1]
"""
RAISES = """
def fails(text, to):
    secret = "password " + text
    raise ValueError("could not parse " + str(len(secret)) + " characters")

try:
    fails(canary, "+569" + canary)
except ValueError:
    sentry_sdk.set_extra("recipient", canary)
    sentry_sdk.set_extra("message_id", "01990000")
    sentry_sdk.capture_exception()
"""
REQUEST = """
sentry_sdk.capture_event({
    "message": "request failed",
    "request": {
        "url": "https://chaski.example/api/v1/messages",
        "data": {"text": canary},
        "query_string": "to=" + canary,
        "cookies": {"sessionid": canary},
        "headers": {"Authorization": "Bearer " + canary, "Host": "chaski.example"},
    },
})
"""


def sent_to_sentry(text: str) -> str:
    """What would reach Sentry when ``text`` runs in a watched process."""
    command = [sys.executable, "-c", WATCHED + text + "\nsentry_sdk.flush()", CANARY]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_an_error_reaches_sentry_without_what_it_was_about() -> None:
    sent = sent_to_sentry(RAISES)
    assert "could not parse" in sent
    assert "01990000" in sent
    assert '"release":"1.2.3"' in sent
    assert CANARY not in sent


def test_the_body_and_the_key_of_a_request_do_not_reach_sentry() -> None:
    sent = sent_to_sentry(REQUEST)
    assert "request failed" in sent
    assert "chaski.example" in sent
    assert CANARY not in sent


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
