"""Arming a restored database: what is shown, what becomes of the messages from before, and who else may arm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from deliveries import acts, lineage, restoring
from deliveries.delivery.database import EngineConnection
from deliveries.lineage import Guard
from deliveries.models import Audit, Lineage, Message, Pending
from deliveries.restoring import Verdict
from deliveries.sql import Cursor
from deliveries.witnesses import ValkeyWitness
from tests.deliveries import broken_rows, steps
from tests.deliveries.lineages import advance, balanced, hold, look, process, restore_to
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


def older_and_newer(shop: Caller) -> tuple[dict[str, UUID], UUID]:
    """A queue as a backup has it, and what was accepted since."""
    make_account("sms")
    first, second = steps.accept(shop.service, 2, ordering_key="cart-1")
    before = {
        "plain": broken_rows.waiting(shop.service)[0],
        "head": first,
        "successor": second,
        "leased": broken_rows.leased(shop.service)[0],
        "doubtful": broken_rows.in_doubt(shop.service)[0],
    }
    hold()
    (newer,) = steps.accept(shop.service)
    return before, newer


def statuses(ids: dict[str, UUID]) -> dict[str, str]:
    return {name: steps.message(message_id).status for name, message_id in ids.items()}


def test_arming_with_hold_puts_what_was_there_in_doubt_and_sends_what_came_since(shop: Caller) -> None:
    before, newer = older_and_newer(shop)
    assert restoring.arm(Verdict.HOLD, actor="shell:ana", reason="backup of the night") == 4
    assert set(statuses(before).values()) == {"in_doubt"}
    assert [claimed.id for claimed in steps.claim()] == [newer]
    assert steps.message(before["plain"]).error_code == "restored"
    armed = Audit.objects.get(action="arm")
    assert (armed.actor, armed.reason, armed.detail["verdict"]) == ("shell:ana", "backup of the night", "hold")
    acts.resolve(steps.message(before["head"]), "retry", actor="somebody", reason="it never arrived")
    assert [claimed.id for claimed in steps.claim()] == [before["head"]]


def test_arming_with_expire_ends_what_was_there_and_it_can_be_redelivered(shop: Caller) -> None:
    before, newer = older_and_newer(shop)
    assert restoring.arm(Verdict.EXPIRE, actor="shell:ana", reason="backup of the night") == 4
    assert statuses(before) == {**dict.fromkeys(before, "expired"), "doubtful": "in_doubt"}
    assert [claimed.id for claimed in steps.claim()] == [newer]
    acts.redeliver(steps.message(before["plain"]), actor="somebody")
    assert [claimed.id for claimed in steps.claim()] == [before["plain"]]


def test_arming_with_send_lets_everything_go(shop: Caller) -> None:
    before, newer = older_and_newer(shop)
    assert restoring.arm(Verdict.SEND, actor="shell:ana", reason="nothing was sent since") == 0
    assert {claimed.id for claimed in steps.claim()} == {before["plain"], before["head"], newer}


@pytest.mark.parametrize("verdict", Verdict)
def test_the_ledger_balances_whatever_is_decided(verdict: Verdict, shop: Caller) -> None:
    older_and_newer(shop)
    assert balanced()
    restoring.arm(verdict, actor="somebody", reason="tried")
    assert balanced()


def test_callbacks_are_told_again_whatever_is_decided(shop: Caller) -> None:
    make_account("sms")
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks")
    broken_rows.sent(shop.service)
    with transaction.atomic(), connection.cursor() as cursor:
        restoring.lineage.read(cursor)
        broken_rows.callbacks.make(cursor, shop.service.pk)
    hold()
    restoring.arm(Verdict.EXPIRE, actor="somebody", reason="tried")
    assert Message.objects.get(origin="callback").status == "queued"
    assert len(steps.claim(channel="webhook")) == 1


def test_what_was_armed_is_held_again_when_the_same_backup_is_restored_again(valkey: ValkeyWitness) -> None:
    advance(process(valkey), 5)
    restore_to(2)
    backup = Lineage.objects.get()
    assert look(process(valkey)).held
    restoring.arm(Verdict.SEND, actor="somebody", reason="tried")
    armed = process(valkey)
    assert not look(armed).held
    advance(armed, 2)
    backup.save()
    assert look(process(valkey)).held


def test_nothing_is_armed_twice_or_for_nothing() -> None:
    with pytest.raises(restoring.NotHeld, match="is not held"):
        restoring.arm(Verdict.SEND, actor="somebody", reason="tried")
    assert not Audit.objects.filter(action="arm").exists()


def test_groups_say_how_much_waits_for_whom_and_how_sure_one_can_be(shop: Caller) -> None:
    older_and_newer(shop)
    held_at = restoring.standing().held_at
    assert held_at is not None
    older, newer = restoring.groups(held_at)
    assert (older.before, older.channel, older.service, older.callbacks) == (True, "sms", "shop", False)
    assert (older.messages, older.begun, older.in_doubt, older.late, older.receipts) == (5, 2, 1, 0, 0)
    assert older.oldest_at < older.newest_at < newer.oldest_at
    assert (newer.before, newer.messages, newer.begun) == (False, 1, 0)
    with steps.later(timedelta(hours=5)):
        assert [group.late for group in restoring.groups(held_at)] == [4, 1]


def test_an_ordinary_role_may_read_the_identity() -> None:
    here = look(Guard(())).here
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE ROLE ordinary NOSUPERUSER")
        cursor.execute("SET LOCAL ROLE ordinary")
        cursor.execute("SELECT chaski_identity()")
        assert cursor.fetchone() == (here,)
        transaction.set_rollback(True)


# -- the decision and who else is about


def test_a_message_that_is_held_says_what_happened_and_what_decides(shop: Caller) -> None:
    before, _ = older_and_newer(shop)
    restoring.arm(Verdict.HOLD, actor="somebody", reason="tried")
    for name in ("plain", "leased"):
        detail = steps.message(before[name]).error_detail
        assert "restored from a backup" in detail
        assert "whether this went out after the backup is not known" in detail
        assert "manage.py resolve" in detail


def arm_while_another_arms(monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """``expire`` is under way in steps of two when somebody else arms: the transaction of its first ``after`` sees it, so
    the next must."""
    monkeypatch.setattr(restoring, "ROWS", 2)
    real = getattr(restoring, after)
    armed: list[int] = []

    def step(*given: object) -> object:
        done = real(*given)
        if not armed:
            armed.append(1)
            assert lineage.arm(given[0], restoring.standing().id)  # type: ignore[arg-type]
        return done

    monkeypatch.setattr(restoring, after, step)
    restoring.arm(Verdict.EXPIRE, actor="shell:ben", reason="too late")


@pytest.mark.parametrize(("after", "decided"), [("_end_leases", 1), ("_decide", 3)])
def test_once_somebody_else_has_armed_nothing_more_is_decided(
    after: str, decided: int, shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = older_and_newer(shop)
    with pytest.raises(restoring.NotHeld, match=rf"somebody else has armed .*: {decided} messages were decided"):
        arm_while_another_arms(monkeypatch, after)
    assert sum(status == "expired" for status in statuses(before).values()) == decided
    assert not Audit.objects.filter(action="arm", actor="shell:ben").exists()


@pytest.mark.django_db(transaction=True)
def test_a_hold_does_not_end_while_a_step_decides_in_it(shop: Caller) -> None:
    held = hold()
    other = EngineConnection()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            assert lineage.is_held(cursor, held.id)
            with other.transaction() as its:
                its.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable), other.transaction() as its:
                lineage.arm(its, held.id)
        with other.transaction() as its:
            assert lineage.arm(its, held.id)
            assert not lineage.is_held(its, held.id)
    finally:
        other.close()


def test_what_a_worker_settles_behind_the_step_is_decided_too(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step has passed its place; its worker lived after all, and made it due again."""
    make_account("sms")
    first, second = sorted(steps.accept(shop.service, 2))
    hold()
    monkeypatch.setattr(restoring, "ROWS", 1)
    Pending.objects.filter(pk=first).update(lease_until=steps.now(), lease_token=UUID(int=1))
    real = restoring._decide

    def decide(*given: object) -> object:
        done = real(*given)  # type: ignore[arg-type]
        Pending.objects.filter(pk=first).update(lease_until=None, lease_token=None)
        return done

    monkeypatch.setattr(restoring, "_decide", decide)
    assert restoring.arm(Verdict.HOLD, actor="somebody", reason="tried") == 2
    assert {steps.message(first).status, steps.message(second).status} == {"in_doubt"}


@pytest.mark.parametrize("statement", ["WAITING", "LEASED"])
def test_a_step_begins_where_the_one_before_ended(statement: str, shop: Caller) -> None:
    """In the index, not by reading past all that is decided."""
    given = {"held_at": steps.now(), "rows": 500, "after": UUID(int=0)}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {getattr(restoring, statement)}", given)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert re.search(r"Index Cond: \(.*message_id > ", plan), plan


def test_each_step_is_given_the_last_id_of_the_one_before(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    make_account("sms")
    ids = sorted(steps.accept(shop.service, 5))
    hold()
    monkeypatch.setattr(restoring, "ROWS", 2)
    given: list[UUID] = []
    real = restoring._decide

    def decide(cursor: Cursor, decided: restoring.Decided, after: UUID) -> list[UUID]:
        given.append(after)
        return real(cursor, decided, after)

    monkeypatch.setattr(restoring, "_decide", decide)
    assert restoring.arm(Verdict.HOLD, actor="somebody", reason="tried") == 5
    nothing = UUID(int=0)
    assert given == [nothing, ids[1], ids[3], ids[4], nothing], "one more look from the first finds none"


# -- time


SLOW = "SELECT 'sms', 'shop', false, true, 1, 0, 0, 0, 0::bigint, now(), now() FROM pg_sleep(1) WHERE %(held_at)s IS NOT NULL"


@contextmanager
def impatient() -> Iterator[None]:
    """A connection whose own limit and whose server's are shorter than the statement takes."""
    with connection.cursor() as cursor, connection.connection.within(0.3):
        cursor.execute("SET LOCAL statement_timeout = '300ms'")
        yield


def test_the_picture_may_take_as_long_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "GROUPS", SLOW)
    with impatient():
        assert len(restoring.groups(steps.now())) == 1


def test_the_steps_may_take_as_long_as_they_need(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    older_and_newer(shop)
    slow = restoring.WAITING.replace("WHERE", "CROSS JOIN pg_sleep(0.5) WHERE")
    monkeypatch.setattr(restoring, "WAITING", slow)
    with impatient():
        assert restoring.arm(Verdict.HOLD, actor="somebody", reason="tried") == 4


def test_a_picture_with_a_limit_says_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "GROUPS", SLOW)
    with pytest.raises(DatabaseError, match="statement timeout"):
        restoring.groups(steps.now(), 0.2)
