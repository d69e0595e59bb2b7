"""What a process may say in a minute: the first of each kind always, of equal ones a few, of all so many lines."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from config import logs
from config.log_budget import REPORT_SECONDS, SECONDS, BoundedHandler, Budget, kind_of

KINDS = 200


def test_equal_lines_are_counted_after_the_tenth_and_again_granted_a_minute_later() -> None:
    budget = Budget()
    granted = [budget.grant("refused", 1, now=float(second)) for second in range(30)]
    assert granted == [1] * 10 + [0] * 20
    assert budget.report() == {"refused": 20}
    assert budget.report() == {}
    assert budget.grant("refused", 1, now=SECONDS) == 1


def test_in_no_minute_are_there_more_lines_than_the_budget_whatever_is_said() -> None:
    budget = Budget()
    told = []
    for tick in range(3 * 60 * 20):
        now = tick / 20
        told += [now] * budget.grant(f"kind {tick % KINDS}", 1, now)
    assert told
    assert all(sum(start <= at < start + SECONDS for at in told) <= 90 for start in range(120))


def test_a_kind_that_was_not_heard_gets_through_when_another_has_said_everything() -> None:
    budget = Budget(per_kind=1000)
    for _ in range(500):
        budget.grant("loud", 1, now=0.0)
    assert budget.grant("quiet", 1, now=1.0) == 1
    assert budget.grant("quiet", 1, now=1.0) == 0, "its first only"


def test_a_text_is_granted_whole_once_and_only_where_there_is_room() -> None:
    budget = Budget(lines=50)
    assert budget.grant("traceback", 40, now=0.0) == 40
    assert budget.grant("traceback", 40, now=0.0) == 1
    assert budget.grant("another", 40, now=0.0) == 1


def test_many_kinds_are_told_as_the_most_frequent_ones_and_a_number() -> None:
    budget = Budget(lines=0, firsts=0)
    for number in range(1000):
        budget.grant(f"kind {number}", 1, now=0.0)
    budget.grant("kind 3", 1, now=0.0)
    report = budget.report()
    assert len(report) <= 14
    assert report["kind 3"] == 2
    assert sum(report.values()) == 1001


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a process that is set up anew writes."""
    before = logging.root.handlers[:]
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        logs.set_up("console", "")
    handler = next(handler for handler in logging.root.handlers if isinstance(handler, BoundedHandler))
    yield stream
    if handler._timer is not None:
        handler._timer.cancel()
    logging.root.handlers[:] = before
    logs.set_up("console", "")


def fail(number: int) -> None:
    """One failure of the kind that comes by the thousand, through the standard library's logging."""
    try:
        raise ConnectionError(f"cannot reach port {number}")
    except ConnectionError:
        logging.getLogger("celery.app.trace").exception("Task %s[%s] raised", "deliver.sms", number)


def test_only_the_first_of_equal_failures_shows_its_traceback_and_the_rest_are_counted(written: io.StringIO) -> None:
    for number in range(500):
        fail(number)
    logging.getLogger("celery.app.trace").error("something else")
    lines = written.getvalue().splitlines()
    assert sum(line.startswith("Traceback") for line in lines) == 1
    assert len(lines) < 30
    assert any("ConnectionError: cannot reach port 1" in line for line in lines), "the others still name their error"
    assert any("something else" in line for line in lines)
    handlers = [handler for handler in logging.root.handlers if isinstance(handler, BoundedHandler)]
    handlers[0].close()
    (left_out,) = [line for line in written.getvalue().splitlines() if "log_lines_left_out" in line]
    assert "lines=490" in left_out
    assert "celery.app.trace" in left_out


def test_what_was_left_out_is_told_after_a_while_without_a_further_line(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("config.log_budget.REPORT_SECONDS", 0.05)
    assert REPORT_SECONDS < SECONDS
    for number in range(20):
        fail(number)
    handlers = [handler for handler in logging.root.handlers if isinstance(handler, BoundedHandler)]
    timer = handlers[0]._timer
    assert timer is not None
    timer.join(5)
    assert "log_lines_left_out" in written.getvalue()


def test_a_line_per_accepted_message_is_bounded_in_trouble_only(written: io.StringIO) -> None:
    log = structlog.get_logger("deliveries.intake.accept")
    for number in range(300):
        log.info("message_accepted", message_id=str(number))
    assert written.getvalue().count("message_accepted") == 300
    log.warning("bell_not_rung", error="ConnectionError")
    for number in range(300):
        log.info("message_accepted", message_id=str(number))
    assert 300 < written.getvalue().count("message_accepted") <= 310


def test_ids_and_numbers_make_no_new_kind_and_another_error_does() -> None:
    def record(message: object) -> logging.LogRecord:
        return logging.LogRecord("some.logger", logging.WARNING, "", 0, message, (), None)

    assert kind_of(record("failed after 3 tries at 10.0.0.7")) == kind_of(record("failed after 9 tries at 10.0.0.8"))
    one, other = ({"event": "relay_job_failed", "job": "ring", "error": error} for error in ("OSError", "KeyError"))
    assert kind_of(record(one)) != kind_of(record(other))
