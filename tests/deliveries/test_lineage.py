"""A restored database is held before anything is claimed, swept, expired or told; an ordinary restart is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from redis.backoff import NoBackoff
from redis.retry import Retry
from structlog.testing import capture_logs

from chaski.vocabulary import Lane
from deliveries import acts, ledger, lineage, pausing, restoring
from deliveries.delivery import engine
from deliveries.doorbell import redis_url
from deliveries.lineage import FileWitness, Guard, Standing, ValkeyWitness
from deliveries.models import Audit, Lineage, Message, Untold
from deliveries.models.control import PauseScope
from deliveries.relay import Relay
from deliveries.restoring import Verdict
from tests.deliveries import broken_rows, steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


@pytest.fixture
def valkey() -> Iterator[ValkeyWitness]:
    client = redis.Redis.from_url(redis_url(settings.CHASKI_CACHE_URL))
    yield ValkeyWitness(client)
    client.close()


@pytest.fixture
def file(tmp_path: Path) -> FileWitness:
    return FileWitness(tmp_path / "folder" / "witness")


def look(guard: Guard) -> Standing:
    with transaction.atomic(), connection.cursor() as cursor:
        return guard.look(cursor)


def advance(guard: Guard, times: int = 1) -> None:
    for _ in range(times):
        with transaction.atomic(), connection.cursor() as cursor:
            tell = guard.advance(cursor)
        tell()


def restore_to(counter: int) -> None:
    Lineage.objects.update(counter=counter)


def come_from_elsewhere() -> None:
    Lineage.objects.update(identity="another cluster/1")


def test_the_first_look_begins_a_lineage_and_holds_nothing(valkey: ValkeyWitness, file: FileWitness) -> None:
    standing = look(Guard((valkey, file)))
    assert (standing.held, standing.counter, standing.moved) == (False, 0, False)
    assert "/" in standing.identity, "an ordinary role may read the cluster's number"


@pytest.mark.parametrize("kind", ["valkey", "file"])
def test_a_database_behind_what_a_witness_saw_is_held_with_the_reason(
    kind: str, request: pytest.FixtureRequest
) -> None:
    witness = request.getfixturevalue(kind)
    advance(Guard((witness,)), 5)
    restore_to(3)
    standing = look(Guard((witness,)))
    assert standing.held
    assert "count 3" in standing.reason
    assert "seen further on (count 5)" in standing.reason
    assert Audit.objects.get(action="hold").target == f"lineage:{standing.id}"


def test_a_process_that_goes_on_remembers_by_itself() -> None:
    guard = Guard(())
    advance(guard, 2)
    restore_to(1)
    assert look(guard).held


def test_an_ordinary_restart_is_not_held(valkey: ValkeyWitness, file: FileWitness) -> None:
    advance(Guard((valkey, file)), 3)
    assert not look(Guard((valkey, file))).held


def test_a_witness_that_lags_behind_holds_nothing(valkey: ValkeyWitness) -> None:
    """A process died between its commit and its word to the witness; or a standby took over cleanly."""
    advance(Guard((valkey,)), 3)
    restore_to(9)
    assert not look(Guard((valkey,))).held


def test_an_empty_valkey_holds_nothing_and_is_told_anew(valkey: ValkeyWitness) -> None:
    advance(Guard((valkey,)), 3)
    here = look(Guard(()))
    valkey._client.delete(lineage.KEY)
    fresh = Guard((valkey,))
    assert not look(fresh).held
    advance(fresh)
    assert valkey.seen(here.id) == 4


def test_a_dump_that_nothing_here_has_seen_is_held(valkey: ValkeyWitness, file: FileWitness) -> None:
    look(Guard(()))
    come_from_elsewhere()
    standing = look(Guard((valkey, file)))
    assert standing.held
    assert "made elsewhere (another cluster/1" in standing.reason


def test_a_dump_older_than_what_was_seen_here_is_held(valkey: ValkeyWitness) -> None:
    advance(Guard((valkey,)), 3)
    restore_to(2)
    come_from_elsewhere()
    assert "seen further on" in look(Guard((valkey,))).reason


def test_a_move_to_another_cluster_that_lost_nothing_is_taken_over(valkey: ValkeyWitness) -> None:
    advance(Guard((valkey,)), 3)
    come_from_elsewhere()
    assert not look(Guard((valkey,))).held
    after = look(Guard(()))
    assert (after.held, after.moved) == (False, False), "the new place is its own from now on"


def test_a_witness_that_is_away_is_asked_again_and_complained_of_once(
    valkey: ValkeyWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance(Guard((valkey,)), 3)
    restore_to(1)
    away = ValkeyWitness(redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0)))
    monkeypatch.setattr(lineage, "ASK_AGAIN_SECONDS", 0.0)
    guard = Guard((away,))
    with capture_logs() as logs:
        assert not look(guard).held, "nothing is known: the database's word counts"
        look(guard)
    assert [log["event"] for log in logs] == ["witness_is_away"]
    away._client = valkey._client
    assert look(guard).held


def test_valkey_remembers_the_highest_count(valkey: ValkeyWitness) -> None:
    """Two relays count, and the one that counted first may be the last to say so."""
    here = look(Guard(())).id
    valkey.saw(here, 7)
    valkey.saw(here, 3)
    assert valkey.seen(here) == 7


def test_a_file_remembers_the_highest_count_and_not_every_lineage(file: FileWitness, tmp_path: Path) -> None:
    for number in range(lineage.REMEMBERED + 5):
        file.saw(UUID(int=number), 7)
    file.saw(UUID(int=24), 3)
    assert (file.seen(UUID(int=24)), file.seen(UUID(int=0))) == (7, None)
    assert len(json.loads((tmp_path / "folder" / "witness").read_text())) == lineage.REMEMBERED
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["witness"]


def test_a_file_that_is_no_json_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "witness").write_text("{")
    assert FileWitness(tmp_path / "witness").seen(UUID(int=1)) is None


# -- what held means


def hold() -> Standing:
    guard = Guard(())
    advance(guard, 2)
    restore_to(0)
    standing = look(guard)
    assert standing.held
    return standing


def test_nothing_is_claimed_while_it_is_held_and_resume_does_not_let_it_go(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service)
    hold()
    assert not steps.claim()
    acts.resume(PauseScope.ALL, "", actor="somebody")
    assert not steps.claim()
    with connection.cursor() as cursor:
        assert pausing.read(cursor).everything


@pytest.mark.django_db(transaction=True)
def test_a_worker_looks_by_itself_before_its_first_claim(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "guard", lambda: Guard(()))
    make_account("sms")
    steps.accept(shop.service)
    look(Guard(()))
    come_from_elsewhere()
    worker = engine.Engine("worker-of-a-test")
    try:
        assert worker.drain("sms", Lane.BULK, (), "task-of-a-test").claimed == 0
    finally:
        worker._claims.close()
    assert Lineage.objects.get().held_at


def test_a_held_database_does_not_count_on(valkey: ValkeyWitness) -> None:
    """Its last sign of life tells the time of the backup, and the witnesses stay what they are."""
    before = hold()
    advance(Guard((valkey,)))
    after = look(Guard(()))
    assert (after.counter, after.advanced_at) == (before.counter, before.advanced_at)


@pytest.mark.django_db(transaction=True)
def test_the_relay_ends_expires_and_tells_nothing_while_it_is_held_and_goes_on_when_it_is_armed(
    shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "guard", lambda: Guard(()))
    make_account("sms")
    call_command("endpoint", "set", shop.service.name, "https://93.184.216.34/hooks")
    told = broken_rows.sent(shop.service)[0]
    steps.accept(shop.service, send_at=steps.now() + timedelta(milliseconds=1))
    (expired,) = steps.accept(shop.service)
    (leased,) = broken_rows.leased(shop.service)
    with connection.cursor() as cursor:
        for sql in (
            "UPDATE message SET created_at = created_at - interval '2 hours', expires_at = chaski_now() - interval '1 hour'"
            " WHERE id = %(id)s",
            "UPDATE acceptance SET accepted_at = accepted_at - interval '2 hours' WHERE message_id = %(id)s",
            "UPDATE pending p SET expires_at = m.expires_at FROM message m WHERE m.id = p.message_id AND m.id = %(id)s",
            "UPDATE pending SET lease_until = chaski_now() - interval '1 hour' WHERE lease_until IS NOT NULL",
        ):
            cursor.execute(sql, {"id": expired})
    hold()
    with closing(Relay()) as relay:
        relay.tick()
        assert Untold.objects.filter(message_id=told).exists()
        assert steps.message(expired).status == "queued"
        assert steps.pending(leased).lease_token is not None  # type: ignore[union-attr]
        assert balanced(), "what waits to be armed is no violation"
        assert not relay.due(), "and nobody is rung for it"
        restoring.arm(Verdict.SEND, actor="somebody", reason="tried")
        relay._swept_at = float("-inf")
        relay.tick()
    assert not Untold.objects.filter(message_id=told).exists()
    assert steps.message(expired).status == "expired"
    assert steps.message(leased).in_doubt_count == 1


# -- arming


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


def balanced() -> bool:
    with connection.cursor() as cursor:
        return ledger.examine(cursor).balanced


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
    advance(Guard((valkey,)), 5)
    restore_to(2)
    backup = Lineage.objects.get()
    assert look(Guard((valkey,))).held
    restoring.arm(Verdict.SEND, actor="somebody", reason="tried")
    armed = Guard((valkey,))
    assert not look(armed).held
    advance(armed, 2)
    backup.save()
    assert look(Guard((valkey,))).held


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
