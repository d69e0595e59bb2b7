"""A row that cannot be written keeps no other from being written, nor the next run from its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import psycopg.errors
import pytest
from django.db import connection, transaction
from structlog.testing import capture_logs

from channels.base import Receipt, ReceiptKind
from deliveries import apart, receipts
from deliveries.delivery import sweep
from deliveries.models import Receipt as Kept
from deliveries.sql import Cursor
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _account(shop: Caller) -> None:
    make_account("sms")


def run(job: Callable[[Cursor], object]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        job(cursor)


def spoil(message_id: UUID) -> None:
    """As a repair by hand may leave it: it counts fewer events than it has, so that its next one cannot be written."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO event SELECT id, event_sequence + 1, service_id, status, updated_at, '', NULL, '' FROM message"
            " WHERE id = %s",
            [message_id],
        )


def mend(message_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM event e USING message m WHERE m.id = %s AND e.message_id = m.id AND e.sequence > m.event_sequence",
            [message_id],
        )


@pytest.fixture
def leased(shop: Caller) -> Iterator[list[UUID]]:
    """Three messages whose leases have ended."""
    ids = steps.accept(shop.service, 3)
    steps.begun(steps.claim())
    with steps.later(timedelta(seconds=steps.LEASE_SECONDS + 1)):
        yield ids


def test_a_lease_that_cannot_be_ended_keeps_no_other_from_it(leased: list[UUID]) -> None:
    spoil(leased[0])
    with capture_logs() as logs:
        run(sweep.end_leases)
    assert [steps.message(each).in_doubt_count for each in leased] == [0, 1, 1]
    (line,) = logs
    assert (line["event"], line["message_id"]) == ("lease_cannot_be_ended", str(leased[0]))
    assert line["constraint"].endswith("_pkey")


def test_what_could_not_be_written_is_tried_again_only_after_minutes(
    leased: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(leased[0])
    run(sweep.end_leases)
    mend(leased[0])
    run(sweep.end_leases)
    assert steps.message(leased[0]).in_doubt_count == 0, "the next run is not slowed by it"
    monkeypatch.setattr(apart, "SECONDS", 0.0)
    run(sweep.end_leases)
    assert steps.message(leased[0]).in_doubt_count == 1


def test_a_message_that_cannot_expire_keeps_no_other_from_it_and_stays_in_the_queue(shop: Caller) -> None:
    ids = steps.accept(shop.service, 3)
    spoil(ids[0])
    with steps.later(timedelta(hours=5)):
        run(sweep.expire)
        assert [steps.message(each).status for each in ids] == ["queued", "expired", "expired"]
        assert [bool(steps.pending(each)) for each in ids] == [True, False, False]
        with connection.cursor() as cursor:
            assert sweep.expire(cursor) == 0


def test_a_receipt_that_cannot_be_applied_keeps_no_other_from_it(shop: Caller) -> None:
    ids = steps.accept(shop.service, 3)
    for each in ids:
        steps.send(each)
    spoil(ids[0])
    came = [Receipt(f"{each}", ReceiptKind.DELIVERED, message_id=str(each)) for each in ids]
    with transaction.atomic(), connection.cursor() as cursor:
        receipts.store(cursor, [(steps.account_of(ids[0]).pk, came)])
    run(receipts.apply)
    assert [steps.message(each).status for each in ids] == ["sent", "delivered", "delivered"]
    left = Kept.objects.get(applied_at=None)
    assert left.look_at > steps.now() + timedelta(minutes=5)
    mend(ids[0])
    with steps.later(timedelta(minutes=11)):
        run(receipts.apply)
    assert steps.message(ids[0]).status == "delivered"


def test_of_many_the_bad_ones_are_found_by_halves() -> None:
    calls: list[Sequence[int]] = []

    def act(rows: Sequence[int]) -> None:
        calls.append(rows)
        if 77 in rows:
            raise psycopg.errors.UniqueViolation

    with connection.cursor() as cursor:
        failed = apart.write(cursor, range(256), act)
    assert [row for row, _ in failed] == [77]
    assert len(calls) == 17
    assert sorted(row for rows in calls if 77 not in rows for row in rows) == [n for n in range(256) if n != 77]


@pytest.mark.parametrize("state", ["25006", "57014", "55P03", "42703"])
def test_an_error_that_says_nothing_of_the_rows_blames_none(state: str) -> None:
    calls = []

    def act(rows: Sequence[int]) -> None:
        calls.append(rows)
        raise psycopg.errors.lookup(state)

    with pytest.raises(psycopg.Error), transaction.atomic(), connection.cursor() as cursor:
        apart.write(cursor, range(4), act)
    assert len(calls) == 1


@pytest.mark.parametrize("error", [psycopg.errors.DataCorrupted(), ValueError("'odd' is not a valid Status")])
def test_a_damaged_row_is_a_row_that_cannot_be_written(error: Exception) -> None:
    def act(rows: Sequence[int]) -> None:
        if 3 in rows:
            raise error

    with connection.cursor() as cursor:
        assert apart.write(cursor, range(4), act) == [(3, error)]


def test_a_bounded_number_is_remembered_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MOST", 3)
    memory, ids = apart.Apart("something_happened"), [uuid4() for _ in range(5)]

    def act(_: Sequence[UUID]) -> None:
        raise psycopg.errors.UniqueViolation

    with connection.cursor() as cursor:
        memory.write(cursor, ids, act, lambda each: each)
    assert memory.ids() == ids[2:]
