"""Recording: what is written for a lease that is ours, and for one that no longer is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection, transaction

from channels.base import ReceiptKind
from chaski.vocabulary import Status
from deliveries.delivery import recorder as recording
from deliveries.delivery import sweep
from deliveries.delivery.recorder import Recorder, Result
from deliveries.delivery.settle import Settlement, settle
from deliveries.models import Account, Attempt, Event, Pending, Suppression
from deliveries.retry import Decision, Outcome
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> None:
    make_account("sms")


def test_an_accepted_message_leaves_the_queue_with_its_evidence(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, Outcome(provider_message_id="SM1"))
    message, attempt = steps.message(message_id), Attempt.objects.get()
    assert (message.status, message.provider_message_id, message.attempt_count) == ("sent", "SM1", 1)
    assert (attempt.outcome, attempt.provider_message_id) == ("accepted", "SM1")
    assert attempt.opened_at <= attempt.begun_at <= attempt.finished_at == message.sent_at
    assert [event.status for event in Event.objects.order_by("sequence")] == ["queued", "sending", "sent"]
    assert steps.pending(message_id) is None


def test_a_refusal_that_may_pass_keeps_the_message_with_its_reason_and_time(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    decision = steps.send(message_id, steps.REFUSALS["throttled"])
    message, pending = steps.message(message_id), steps.pending(message_id)
    assert decision is not None
    assert pending is not None
    assert (message.status, message.error_class, message.error_code) == ("queued", "throttled", "http_429")
    assert (pending.due_at, pending.waiting_for, pending.lease_token) == (decision.due_at, "rate_limit", None)


def test_an_old_token_changes_nothing_and_its_fact_is_kept(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    (frozen,) = steps.claim()
    steps.begun([frozen])
    with steps.later(timedelta(seconds=61)):
        steps.swept()
        (second,) = steps.claim()
        steps.begun([second])
        assert steps.record(frozen, steps.REFUSALS["recipient_refused"]) is None
        pending = steps.pending(message_id)
        assert pending is not None
        assert pending.lease_token == second.token, "the second worker's lease stands"
        assert steps.message(message_id).status == "queued"
        late = Attempt.objects.get(number=1).late
        assert late is not None
        assert (late["outcome"], late["code"]) == ("recipient_refused", "21211")
        steps.record(second, steps.ACCEPTED)
        assert steps.message(message_id).status == "sent"


def test_the_moment_of_the_request_is_kept_with_its_attempt(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    written = datetime(2026, 11, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    steps.send(message_id, Outcome("in_doubt", "timeout", written_at=written))
    assert Attempt.objects.get().written_at == written


def test_a_frozen_workers_moment_of_the_request_comes_late_and_is_kept(shop: Caller) -> None:
    steps.accept(shop.service)
    (frozen,) = steps.claim()
    steps.begun([frozen])
    written = datetime(2026, 11, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    with steps.later(timedelta(seconds=61)):
        steps.swept()
        assert Attempt.objects.get().written_at is None, "nobody can know"
        steps.record(frozen, Outcome("transient", "http_500", written_at=written))
    attempt = Attempt.objects.get()
    assert attempt.late is not None
    assert datetime.fromisoformat(attempt.late["written_at"]) == attempt.written_at == written


def test_a_late_acceptance_moves_a_message_that_still_waits(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    (frozen,) = steps.claim()
    steps.begun([frozen])
    with steps.later(timedelta(seconds=61)):
        steps.swept()
        assert steps.record(frozen, steps.ACCEPTED) is None
        assert steps.message(message_id).status == "sent"
        assert steps.pending(message_id) is None, "it must not go again"
        assert Attempt.objects.get().late["outcome"] == "accepted"


def test_a_receipt_that_is_quicker_than_the_answer_wins(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    (claimed,) = steps.claim()
    steps.begun([claimed])
    steps.receive(steps.message(message_id), ReceiptKind.DELIVERED)
    steps.record(claimed, steps.REFUSALS["in_doubt"])
    message = steps.message(message_id)
    assert (message.status, message.in_doubt_count, message.attempt_count) == ("delivered", 1, 1)
    assert steps.pending(message_id) is None


def test_a_head_that_a_receipt_took_out_of_the_queue_lets_its_successor_go_at_once(shop: Caller) -> None:
    first, second = steps.accept(shop.service, 2, ordering_key="order:1")
    (claimed,) = steps.claim()
    steps.begun([claimed])
    assert not steps.claim(), "the second waits for its predecessor"
    steps.receive(steps.message(first), ReceiptKind.DELIVERED)
    steps.record(claimed, steps.REFUSALS["transient"])
    assert steps.pending(first) is None
    assert [each.id for each in steps.claim()] == [second]


def test_the_end_of_a_lease_lets_the_successor_of_a_delivered_head_go_too(shop: Caller) -> None:
    first, second = steps.accept(shop.service, 2, ordering_key="order:1")
    steps.begun(steps.claim())
    assert not steps.claim()
    steps.receive(steps.message(first), ReceiptKind.DELIVERED)
    with steps.later(timedelta(seconds=steps.LEASE_SECONDS + 1)):
        with transaction.atomic(), connection.cursor() as cursor:
            assert sweep.end_leases(cursor) == 1
        assert [each.id for each in steps.claim()] == [second]


def test_wrong_credentials_stop_the_account_and_keep_the_message(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, steps.REFUSALS["misconfigured"])
    account, pending = Account.objects.get(), steps.pending(message_id)
    assert account.stopped_reason == "20003: wrong token"
    assert pending is not None
    assert pending.tries == 0, "no try is burned on what an operator must mend"
    assert not steps.claim()


def test_a_recipient_that_asked_for_it_is_suppressed(shop: Caller) -> None:
    (message_id,) = steps.accept(shop.service)
    steps.send(message_id, Outcome("recipient_refused", "21610", "STOP", suppress=True))
    suppression = Suppression.objects.get()
    assert (suppression.service, suppression.recipient, suppression.actor) == (shop.service, "+56912345678", "provider")
    assert suppression.reason == "21610: STOP"


def test_the_next_of_an_ordering_key_is_released_with_the_record_of_its_head(shop: Caller) -> None:
    first, second, third = steps.accept(shop.service, 3, ordering_key="order:1")
    assert [claimed.id for claimed in steps.claim()] == [first]
    (claimed,) = Pending.objects.filter(pk=first)
    assert {p.waiting_for for p in Pending.objects.exclude(pk=first)} == {"predecessor"}
    assert not steps.claim()
    attempt = Attempt.objects.get()
    _settle_as_sent(claimed, attempt)
    assert [c.id for c in steps.claim()] == [second]
    assert steps.pending(third).blocked  # type: ignore[union-attr]


def _settle_as_sent(pending: Pending, attempt: Attempt) -> None:
    assert pending.lease_token is not None
    done = Decision((Status.SENT,))
    row = Settlement(
        pending.pk, attempt.number, pending.lease_token, pending.account_id, attempt.opened_at, Outcome(), done
    )
    with connection.cursor() as cursor:
        assert settle(cursor, [row]) == {pending.pk}


def test_a_retry_keeps_the_successors_of_its_key_waiting(shop: Caller) -> None:
    first, second = steps.accept(shop.service, 2, ordering_key="order:1")
    steps.send(first, steps.REFUSALS["not_sent"])
    with steps.later(timedelta(minutes=1)):
        assert [claimed.id for claimed in steps.claim()] == [first]
    assert steps.pending(second).waiting_for == "predecessor"  # type: ignore[union-attr]


# -- the recorder: many results at once


class Database:
    """What the recorder writes to, here a list; refuses what a test says."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.away = 0
        self.calls = 0

    def settle(self, _cursor: object, settlements: list[Settlement]) -> set[UUID]:
        self.calls += 1
        if self.away:
            self.away -= 1
            raise psycopg.OperationalError("the database is away")
        if any(row.outcome.code == "unwritable" for row in settlements):
            raise psycopg.DataError("a row that no database takes")
        self.written += [row.outcome.code for row in settlements]
        return {row.id for row in settlements}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any) -> Database:
    settings.CHASKI_SPILL = str(tmp_path)
    standing_in = Database()
    monkeypatch.setattr(recording, "settle", standing_in.settle)
    monkeypatch.setattr(recording, "log", _Silent())
    return standing_in


@pytest.fixture
def recorder(database: Database) -> Iterator[Recorder]:
    made = Recorder(lambda: 0)
    yield made
    made._connection.close()


class _Silent:
    def warning(self, *_: object, **__: object) -> None: ...

    def error(self, *_: object, **__: object) -> None: ...

    def exception(self, *_: object, **__: object) -> None: ...


def _result(code: str) -> Result:
    outcome = Outcome("not_sent", code)
    now = datetime.now(UTC)
    row = Settlement(uuid4(), 1, uuid4(), 1, now, outcome, Decision((Status.QUEUED,), due_at=now))
    return Result(row, lambda: None)


def test_a_row_that_cannot_be_written_does_not_drag_its_neighbours(recorder: Recorder, database: Database) -> None:
    recorder._write([_result("unwritable" if n == 37 else str(n)) for n in range(100)])
    assert sorted(database.written, key=int) == [str(n) for n in range(100) if n != 37]
    assert database.calls < 20, "bisected, not tried one by one"


def test_results_wait_for_a_database_that_is_away(
    recorder: Recorder, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Recorder, "_wait", lambda _self, seconds: waits.append(seconds))
    database.away = 3
    recorder._write([_result("a"), _result("b")])
    assert database.written == ["a", "b"]
    assert waits == sorted(waits)
    assert len(waits) == 3
