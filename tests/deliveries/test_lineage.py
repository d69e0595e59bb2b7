"""A database that was restored is held, whoever finds it out; one that was not, is not."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.db import connection, transaction
from structlog.testing import capture_logs

from deliveries import lineage, restoring
from deliveries.lineage import Guard
from deliveries.models import Audit, Lineage
from deliveries.restoring import Verdict
from deliveries.witnesses import KEY, FileWitness, ValkeyWitness
from tests.deliveries import steps
from tests.deliveries.lineages import advance, come_from_elsewhere, look, process, restore_to, unreachable
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db


def test_the_first_look_begins_a_lineage_and_holds_nothing(valkey: ValkeyWitness, file: FileWitness) -> None:
    Lineage.objects.all().delete()
    valkey.saw(UUID(int=1), 5)  # another system of the same Valkey, or the database that was dropped for this one
    standing = look(process(valkey, file))
    assert (standing.held, standing.counter, standing.moved) == (False, 0, False)
    assert "/" in standing.identity, "an ordinary role may read the cluster's number"


@pytest.mark.parametrize("kind", ["valkey", "file"])
def test_a_database_behind_what_a_witness_saw_is_held_with_the_reason(
    kind: str, request: pytest.FixtureRequest
) -> None:
    witness = request.getfixturevalue(kind)
    advance(process(witness), 5)
    restore_to(3)
    standing = look(process(witness))
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
    advance(process(valkey, file), 3)
    assert not look(process(valkey, file)).held


def test_a_witness_that_lags_behind_holds_nothing(valkey: ValkeyWitness) -> None:
    """A process died between its commit and its word to the witness; or a standby took over cleanly."""
    advance(process(valkey), 3)
    restore_to(9)
    assert not look(process(valkey)).held


def test_an_empty_valkey_holds_nothing_and_is_told_anew(valkey: ValkeyWitness) -> None:
    advance(process(valkey), 3)
    here = look(Guard(()))
    valkey._client.delete(KEY)
    fresh = process(valkey)
    assert not look(fresh).held
    advance(fresh)
    assert valkey.known()[here.id] == 4


def test_a_dump_that_nothing_here_has_seen_is_held(valkey: ValkeyWitness, file: FileWitness) -> None:
    look(Guard(()))
    come_from_elsewhere()
    standing = look(process(valkey, file))
    assert standing.held
    assert "made elsewhere (another cluster/1" in standing.reason


def test_a_dump_older_than_what_was_seen_here_is_held(valkey: ValkeyWitness) -> None:
    advance(process(valkey), 3)
    restore_to(2)
    come_from_elsewhere()
    assert "seen further on" in look(process(valkey)).reason


def test_a_move_to_another_cluster_that_lost_nothing_is_taken_over(valkey: ValkeyWitness) -> None:
    advance(process(valkey), 3)
    come_from_elsewhere()
    assert not look(process(valkey)).held
    after = look(Guard(()))
    assert (after.held, after.moved) == (False, False), "the new place is its own from now on"


def test_a_witness_that_is_away_is_asked_again_and_complained_of_once(valkey: ValkeyWitness) -> None:
    advance(process(valkey), 3)
    restore_to(1)
    away = ValkeyWitness(unreachable())
    with capture_logs() as logs:
        guard = process(away)
        assert not look(guard).held, "nothing is known: the database's word counts"
        guard.ask()
    assert [log["event"] for log in logs] == ["witness_is_away"]
    away._client = valkey._client
    guard.ask()
    assert look(guard).held


# -- a backup of a release that did not count yet


def begin_late(shop: Caller) -> None:
    """The lineage of a database whose messages are older than it: migrated after a restore, or after an upgrade."""
    make_account("sms")
    steps.accept(shop.service)
    Lineage.objects.all().delete()
    with transaction.atomic(), connection.cursor() as cursor:
        assert lineage.read(cursor).begun_late


@pytest.mark.parametrize("kind", ["valkey", "file"])
def test_messages_older_than_the_lineage_are_held_where_another_lineage_was_counted(
    kind: str, request: pytest.FixtureRequest, shop: Caller
) -> None:
    witness = request.getfixturevalue(kind)
    advance(process(witness))
    begin_late(shop)
    standing = look(process(witness))
    assert standing.held
    assert "a backup of a release that did not count yet" in standing.reason
    restoring.arm(Verdict.SEND, actor="somebody", reason="tried")
    assert not look(process(witness)).held


def test_a_process_that_saw_the_database_before_holds_the_old_one_by_itself(shop: Caller) -> None:
    guard = process()
    advance(guard)
    begin_late(shop)
    assert look(guard).held


def test_an_upgrade_to_the_first_release_that_counts_is_not_held(
    valkey: ValkeyWitness, file: FileWitness, shop: Caller
) -> None:
    begin_late(shop)
    guard = process(valkey, file)
    assert not look(guard).held
    assert not Lineage.objects.get().begun_late, "every witness was heard: nothing is open any more"
    advance(guard)
    valkey.saw(UUID(int=1), 5)  # another system of the same Valkey is upgraded later
    assert not look(process(valkey, file)).held


def test_a_witness_that_was_away_at_the_upgrade_is_still_heard_about_it(shop: Caller, valkey: ValkeyWitness) -> None:
    advance(process(valkey))
    begin_late(shop)
    away = ValkeyWitness(unreachable())
    guard = process(away)
    advance(guard, 2)
    assert not look(guard).held, "nothing is known"
    away._client = valkey._client
    guard.ask()
    assert look(guard).held


def test_a_lineage_whose_transaction_came_to_nothing_is_no_other_one(shop: Caller) -> None:
    begin_late(shop)
    Lineage.objects.all().delete()
    guard = Guard(())
    with transaction.atomic(), connection.cursor() as cursor:
        guard.look(cursor)
        transaction.set_rollback(True)
    assert not look(guard).held


def test_a_database_that_migrate_made_has_a_lineage_that_began_before_its_messages(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service)
    assert not Lineage.objects.get().begun_late
