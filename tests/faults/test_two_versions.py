"""F37-F38: a deployment and its way back under load, with the released version and the code here side by side.

The released version is the commit that `tests/contracts/released.py` names, from the history of this repository.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.contracts import released
from tests.faults.evidence import Evidence
from tests.faults.versions import Load, Release, Versions
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.thorough, pytest.mark.processes]
#: Nobody may wait longer for a lock while the schema changes.
LOCK_SECONDS = 3.0
#: Does somebody wait for the busiest table?
WANTED = "SELECT count(*) FROM pg_locks WHERE relation = 'pending'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted"
#: The schema of a release after this one: a column on the busiest table, and an index on it.
LATER = {"DJANGO_SETTINGS_MODULE": "tests.migrations.later_settings"}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    """The old release runs on its own schema."""
    home: Path = tmp_path_factory.mktemp("versions")
    old = released.tree(home / "old")
    with Versions(home, old) as running:
        yield running


@pytest.fixture(scope="module")
def shop(versions: Versions) -> Tenant:
    """A service set up by the old release."""
    return versions.new_service(versions.twilio())


def nothing_is_lost(versions: Versions, shop: Tenant, told: list[str], *ledgers: Release) -> None:
    """All that clients were told was sent, again only after a counted doubt, and the books of ``ledgers`` balance."""
    assert set(shop.settled(90)) <= {"sent", "delivered"}
    accepts, doubts = versions.accepted(*told), shop.doubts()
    assert set(doubts) >= set(told), "what clients were told is there"
    assert set(accepts) == set(told), "every message reached the provider"
    assert not {id_: n for id_, n in accepts.items() if n > 1 + doubts[id_]}, (
        "accepts without a doubt that explains them"
    )
    for release in ledgers:
        manage = versions.manage_of(release)
        wait_for(lambda manage=manage: manage.run("ledger", "--json", codes=(0, 1)).document["balanced"], 30)


def nothing_but_notes_is_parked(versions: Versions) -> None:
    sql = "SELECT reason, name, detail FROM parked WHERE reason NOT IN ('unknown_version', 'extra_arguments')"
    assert versions.query(sql) == []


@contextmanager
def report(versions: Versions) -> Iterator[None]:
    """Somebody has read the busiest table, and keeps the transaction open until four seconds after it is wanted."""
    read = threading.Event()

    def stay() -> None:
        with psycopg.connect(versions.postgres.socket_url) as reader:
            reader.execute("SELECT count(*) FROM pending")
            read.set()
            wait_for(lambda: versions.query(WANTED) == [(1,)], 60, "the migration wanting the table for itself")
            time.sleep(4)

    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(stay)
        assert read.wait(20)
        yield
        staying.result(90)


@pytest.mark.row("F38", "the new schema under load, the old code at work, a report open", "no wait for a lock over 3 s")
def test_the_schema_changes_under_load_and_the_old_code_goes_on(
    versions: Versions, shop: Tenant, seen: Evidence
) -> None:
    manage = versions.manage_of(versions.new)
    with Load(shop) as load, versions.locks_watched() as waited:
        load.more()
        manage.run("migrate", "--noinput")
        load.more()
        with report(versions):
            manage.run("migrate", "--noinput", variables=LATER)
        load.more()
    assert len(waited) > 50, "the watcher looked"
    assert max(waited) < LOCK_SECONDS
    assert versions.query(
        "SELECT count(*) FROM pg_index WHERE indexrelid = 'pending_shard'::regclass AND indisvalid"
    ) == [(1,)]
    assert versions.running() == {"old"}
    nothing_is_lost(versions, shop, load.told, versions.old, versions.new)
    seen(f"{len(load.told)} messages, none lost; longest wait for a lock {max(waited):.1f} s")


@pytest.mark.row(
    "F37", "the web process first: old workers get new bells and no others", "nothing lost, nothing parked"
)
def test_old_workers_answer_what_new_publishers_ring(versions: Versions, shop: Tenant, seen: Evidence) -> None:
    """Against the documented order. No relay runs, so that only the bells of the new web process can wake the workers."""
    old, new = versions.old, versions.new
    versions.manage_of(new).run("migrate", "--noinput")
    versions.start(new, new.web(versions.ports.web))
    versions.stop(old, "web")
    versions.stop(old, "relay")
    try:
        with Load(shop) as load:
            load.more(300)
        wait_for(lambda: set(shop.statuses()) <= {"sent", "delivered"}, 30, "the sending of all that was rung for")
    finally:
        versions.start(old, old.relay())
        versions.start(old, old.web(versions.ports.web))
        versions.stop(new, "web")
    nothing_is_lost(versions, shop, load.told, old, new)
    nothing_but_notes_is_parked(versions)
    seen(f"{len(load.told)} messages, none lost, nothing parked")


@pytest.mark.row(
    "F37", "a rolling deployment under load, in the documented order", "nothing lost, no doubt unexplained"
)
def test_a_deployment_under_load_loses_nothing(versions: Versions, shop: Tenant, seen: Evidence) -> None:
    versions.manage_of(versions.new).run("migrate", "--noinput")
    with Load(shop) as load:
        load.more()
        versions.roll(versions.old, versions.new)
        load.more()
    assert versions.running() == {"new"}
    nothing_is_lost(versions, shop, load.told, versions.new)
    nothing_but_notes_is_parked(versions)
    seen(f"{len(load.told)} messages, none lost")


@pytest.mark.row("F37", "the way back under load, on the new schema", "nothing lost, no doubt unexplained")
def test_the_way_back_under_load_loses_nothing(versions: Versions, shop: Tenant, seen: Evidence) -> None:
    versions.manage_of(versions.new).run("migrate", "--noinput")
    if "old" in versions.running():
        versions.roll(versions.old, versions.new)
    with Load(shop) as load:
        load.more()
        versions.roll_back(versions.new, versions.old)
        load.more()
    assert versions.running() == {"old"}
    nothing_is_lost(versions, shop, load.told, versions.old, versions.new)
    nothing_but_notes_is_parked(versions)
    seen(f"{len(load.told)} messages, none lost")
