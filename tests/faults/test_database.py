"""F19-F23: the database restarted, killed, cut off around a COMMIT, read-only, locked. It is the truth, so nothing is promised
without it, and nothing that providers answered meanwhile is forgotten."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
import urllib3

from chaski.identifiers import uuid7
from tests.faults.evidence import Evidence
from tests.faults.load import Load
from tests.faults.logs import log_volume
from tests.faults.outages import Outage, black_holed, killed, locked, read_only, restarted
from tests.faults.proxy import Cut, Proxy, Way
from tests.faults.system import WORKERS, FaultSystem
from tests.faults.watching import (
    CALL_SECONDS,
    LEASE_SECONDS,
    NOISE_SECONDS,
    RECOVERY_SECONDS,
    all_sent,
    explained,
    fate,
    once_and_without_doubt,
    row,
    statuses,
)
from tests.processes.system import SCALE, Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

HOOK = "https://shop.example/hooks/"
#: So long that leases are prolonged afterwards: a process that starts may need longer than what is left of one at this scale.
OUTAGE_SECONDS = 15 * SCALE + 1


def asked(shop: Tenant) -> urllib3.BaseHTTPResponse:
    """One request without a client that repeats it."""
    return urllib3.PoolManager(retries=False, timeout=20.0).request(
        "POST",
        f"{shop.system.url}/api/v1/messages",
        body=json.dumps({"channel": "webhook", "to": HOOK, "text": "while it is away"}),
        headers={"Authorization": f"Bearer {shop.key}", "Content-Type": "application/json"},
    )


def refused_for_now(shop: Tenant) -> None:
    """The answer is 503, says when to come back, and no row was made.

    PostgreSQL tells its sessions of a new setting in its own time: what is accepted until then counts as told.
    """
    until = time.monotonic() + 5
    while (answer := asked(shop)).status == 202 and time.monotonic() < until:
        shop.system.told.note(shop.name, [json.loads(answer.data)["id"]])
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), answer.data
    assert int(answer.headers["retry-after"]) >= 1


def only_what_was_told(system: FaultSystem, shop: Tenant) -> None:
    """Every id that a client was told exists, and nothing that none was told."""
    lines = [json.loads(line) for line in system.told.path.read_text().splitlines()]
    told = {line["id"] for line in lines if line["service"] == shop.name}
    kept = {id_ for (id_,) in system.query("SELECT id::text FROM message WHERE service_id = %s", shop.id)}
    assert (told - kept, kept - told) == (set(), set())


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(
            restarted,
            marks=[
                row("F19", "PostgreSQL restarted (fast) under load", "503, then all told are sent"),
                pytest.mark.thorough,
            ],
        ),
        pytest.param(
            killed, marks=row("F20", "kill -9 PostgreSQL under load", "503, then all told are there and sent")
        ),
    ],
)
def test_the_database_gone_under_load_loses_nothing_that_was_promised(
    system: FaultSystem, shop: Tenant, seen: Evidence, outage: Outage
) -> None:
    pids = system.pids()
    with log_volume(system), Load(shop, channel="webhook") as load:
        load.more(60)
        with outage(system):
            refused_for_now(shop)
        with seen.recovery():
            load.more(20)
    all_sent(system, load.told)
    explained(system, shop, load.told)
    only_what_was_told(system, shop)
    assert system.pids() == pids, f"nobody had to be restarted\n{system.log()}"
    seen(f"503 with Retry-After; {len(load.told)} told, all there and sent, no process restarted")


@row("F21", "connection cut before or after the statement that commits an acceptance", "no 202 without a row, one each")
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_an_acceptance_cut_off_at_its_commit_is_one_message(
    system: FaultSystem, shop: Tenant, seen: Evidence, before: bool
) -> None:
    system.database.reset()  # new connections say their statements in full
    # The statement is a transaction by itself: what goes to the server last are its rows.
    rows, statement = b'"fingerprint":', b"INSERT INTO acceptance"
    cut = system.database.cut_at(Way.TO_SERVER, rows, before=before, following=(statement,))
    with seen.recovery():
        message = shop.send("webhook", HOOK)
        all_sent(system, [str(message.id)])
    assert cut.times == 0
    once_and_without_doubt(system, shop, [str(message.id)])
    only_what_was_told(system, shop)
    seen("the client's repeat got the one message")


@dataclass(frozen=True, slots=True)
class WorkersCut:
    """A transaction of a worker, known by its statement, cut off before its end arrives or before its answer does.

    Claim and begin are a statement each, the record several and a COMMIT. ``doubts`` and ``attempts`` must follow.
    """

    said: bytes
    before: bool
    doubts: int
    attempts: int


CLAIM, BEGIN, RECORD = b"INSERT INTO attempt", b"SET begun_at", b"SET finished_at"
CUTS = [
    WorkersCut(CLAIM, before=True, doubts=0, attempts=1),
    WorkersCut(CLAIM, before=False, doubts=0, attempts=2),
    WorkersCut(BEGIN, before=True, doubts=0, attempts=2),
    WorkersCut(BEGIN, before=False, doubts=1, attempts=2),
    WorkersCut(RECORD, before=True, doubts=0, attempts=1),
    WorkersCut(RECORD, before=False, doubts=0, attempts=1),
]


@row(
    "F21",
    "connection cut before or after the COMMIT of claim, begin and record",
    "1 accept each; a doubt only after begin",
)
def test_a_worker_cut_off_at_its_commits_sends_once(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    ids = [cut_off(system, shop, cut) for cut in CUTS]
    with seen.recovery():
        all_sent(system, ids)
    found = [fate(system, id_) for id_ in ids]
    assert [(one.doubts, one.attempts) for one in found] == [(cut.doubts, cut.attempts) for cut in CUTS]
    assert system.accepted(*ids) == dict.fromkeys(ids, 1)
    assert seen.recovery_seconds is not None
    assert seen.recovery_seconds < RECOVERY_SECONDS + NOISE_SECONDS
    seen("6 cuts: 1 accept each, 1 doubt in all: after the commit of the begin")


def cut_off(system: FaultSystem, shop: Tenant, wanted: WorkersCut) -> str:
    """A message for whose sake a worker loses its connection as ``wanted``."""
    id_, to = str(uuid7()), f"{HOOK}{uuid4()}"
    system.database.reset()  # new connections say their statements in full
    cut = planned(system.database, wanted, id_, to)
    shop.send_ids([id_], "webhook", to=to)
    wait_for(lambda: cut.times == 0, 10, f"a worker's {wanted.said.decode()}")
    if wanted.attempts == 1:
        all_sent(system, [id_])
    return id_


def planned(database: Proxy, wanted: WorkersCut, id_: str, to: str) -> Cut:
    """The cut of ``wanted`` for the message ``id_``, which goes ``to``."""
    if wanted.said == RECORD:
        return database.cut_at(Way.TO_SERVER, b"COMMIT", before=wanted.before, following=(RECORD,))
    if wanted.said == BEGIN:
        return database.cut_at(Way.TO_SERVER, BEGIN, before=wanted.before, beside=UUID(id_).hex.encode())
    if wanted.before:
        return database.cut_at(Way.TO_SERVER, CLAIM, before=True, beside=id_.encode())
    # Another claim may come first: only the answer tells which has found it.
    return database.cut_at(Way.TO_CLIENT, to.encode(), before=True, following=(CLAIM,))


READ_ONLY = row("F22", "PostgreSQL read-only", "503 with Retry-After, then all are sent")
LOCKED = row("F23", "pending and message locked", "503 with Retry-After, then all are sent")


@pytest.mark.parametrize("outage", [pytest.param(read_only, marks=READ_ONLY), pytest.param(locked, marks=LOCKED)])
def test_a_database_that_takes_nothing_is_told_to_clients_as_away(
    system: FaultSystem, shop: Tenant, seen: Evidence, outage: Outage
) -> None:
    with log_volume(system), Load(shop, channel="webhook") as load:
        load.more(20)
        with outage(system):
            refused_for_now(shop)
        with seen.recovery():
            load.more(20)
    all_sent(system, load.told)
    explained(system, shop, load.told)
    only_what_was_told(system, shop)
    seen(f"503 with Retry-After; {len(load.told)} sent")


@pytest.mark.parametrize(
    ("outage", "seconds"),
    [
        pytest.param(
            killed,
            LEASE_SECONDS + 2,
            marks=[
                row(
                    "F20",
                    "kill -9 PostgreSQL with answers not recorded, longer than a lease",
                    "all sent once, no doubt",
                ),
            ],
        ),
        pytest.param(
            read_only, 1, marks=[row("F22", "read-only with answers not recorded", "all sent once, no doubt")]
        ),
        pytest.param(
            locked, 4, marks=[row("F23", "locked for 4 s with answers not recorded", "all sent once, no doubt")]
        ),
        pytest.param(
            black_holed,
            LEASE_SECONDS + 2,
            marks=[
                row("F23", "black-holed with answers not recorded, longer than a lease", "all sent once, no doubt"),
                pytest.mark.thorough,
            ],
        ),
    ],
)
def test_what_providers_answered_survives_an_outage_of_the_database(
    system: FaultSystem, shop: Tenant, seen: Evidence, outage: Outage, seconds: float
) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    ids = shop.send_many(40, "webhook")
    going = wait_for(lambda: under_way(system, ids), 10, "calls under way")
    with outage(system):
        until = time.monotonic() + seconds
        wait_for(lambda: len(system.accepted(*going)) == len(going), 10, "the provider's answers")
        time.sleep(max(0.0, until - time.monotonic()))
    with seen.recovery():
        all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    assert statuses(system, ids)["sent"] == len(ids)
    seen(f"{len(going)} answers survived {seconds:.0f} s; each sent once, no doubt")


@row("F20", "PostgreSQL away, answers not recorded, their workers killed too", "all sent once, no doubt")
def test_what_providers_answered_survives_the_worker_as_well(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    system.vendor.delay(CALL_SECONDS / 4)
    ids = shop.send_many(40, "webhook")
    going = wait_for(lambda: under_way(system, ids), 10, "calls under way")
    with seen.recovery():
        with killed(system):
            until = time.monotonic() + OUTAGE_SECONDS
            wait_for(lambda: spilled(system) >= set(going), 10, "the provider's answers on the disk")
            heard = len(system.heard())
            for name in WORKERS:
                system.kill(name)
            time.sleep(max(0.0, until - time.monotonic()))
        all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    assert any(" spill_settled " in line for line in system.heard()[heard:]), "they were read from the disk"
    seen(f"{len(going)} answers survived their workers; each sent once, no doubt")


def spilled(system: FaultSystem) -> set[str]:
    """The ids of the messages whose answers lie in the files of the workers' spill, in whole lines."""
    texts = [file.read_text() for file in (system.home / "spill").glob("*.results")]
    lines = [line for text in texts for line in text.rpartition("\n")[0].splitlines()[1:]]
    return {json.loads(line)["id"] for line in lines}


def under_way(system: FaultSystem, ids: list[str]) -> list[str]:
    """Those of ``ids`` whose call has begun and is not recorded."""
    sql = (
        "SELECT message_id::text FROM attempt"
        " WHERE message_id = ANY(%s::uuid[]) AND begun_at IS NOT NULL AND finished_at IS NULL"
    )
    return [id_ for (id_,) in system.query(sql, ids)]
