"""F39, F43: a backlog of a million, and a callback endpoint that is down for thirty hours.

Each leaves a system in which nobody else would want to work, so each has one of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from chaski.identifiers import uuid7
from tests.channels.wire import answer
from tests.faults.draining import usual_pace, waits, windows
from tests.faults.evidence import Evidence
from tests.faults.hostile import accepts, says, vendors
from tests.faults.system import FaultSystem
from tests.faults.tenants import callbacks, tenant
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes, pytest.mark.thorough]

MILLION = 1_000_000
#: Below this many the workers have less to take than they could.
RUNNING_OUT = 20_000

AS_IN_COMPOSE = {"shared_buffers": "512MB", "min_wal_size": "2GB", "max_wal_size": "4GB"}
"""What docker-compose.yml gives the database; a million rows are not meant for less."""


@pytest.fixture
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """A system of the test's own."""
    home: Path = tmp_path_factory.mktemp("apart")
    with FaultSystem(home) as system:
        yield system


@pytest.fixture
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSystem]:
    """A system of the test's own, whose database has the room that it has in production."""
    home: Path = tmp_path_factory.mktemp("roomy")
    with FaultSystem(home, database_settings=AS_IN_COMPOSE) as system:
        yield system


# -- F43


def move_clock(system: FaultSystem, by: timedelta) -> None:
    """Let ``by`` have passed since the start, for everybody: the database's clock is the only one that decides."""
    with psycopg.connect(system.postgres.socket_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE chaski SET chaski.clock_offset = '{by.total_seconds()} seconds'")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'chaski' AND pid <> pg_backend_pid()"
        )


def callback_attempts(shop: Tenant) -> int:
    """How often one of them was tried, at most."""
    sql = "SELECT coalesce(max(attempt_count), 0) FROM message WHERE service_id = %s AND origin = 'callback'"
    return int(shop.system.query(sql, shop.id)[0][0])


@pytest.mark.row(
    "F43",
    "callback endpoint down for 30 h (simulated: the clock moves)",
    "messages unaffected; its callbacks dead, visible, replayable",
)
def test_an_endpoint_that_is_down_for_thirty_hours_gets_its_callbacks_in_the_end(
    apart: FaultSystem, seen: Evidence
) -> None:
    shop, other = tenant(apart, apart.twilio()), tenant(apart, apart.twilio())
    with vendors() as endpoints:
        endpoints.answers["/down/"] = says(answer(503))
        apart.manage.run("endpoint", "set", shop.name, f"{endpoints.url}/down/")
        apart.manage.run("endpoint", "set", other.name, f"{endpoints.url}/up/")
        for each in (shop, other):
            each.send_many(30)
        wait_for(lambda: shop.statuses() == other.statuses() == {"delivered": 30}, 60, "the messages themselves")
        wait_for(lambda: set(callbacks(other)) == {"sent"}, 30, "the other service's callbacks")
        hours = (1, 3, 7, 14, 22, 27, 30)
        for hour in hours:
            before = callback_attempts(shop)
            move_clock(apart, timedelta(hours=hour))
            wait_for(lambda n=before: callback_attempts(shop) > n or ended(shop), 60, f"an attempt in hour {hour}")  # type: ignore[misc]
        wait_for(lambda: ended(shop), 60, "the end of the callbacks")
        dead, tries = callbacks(shop), callback_attempts(shop)
        assert set(dead) <= {"expired", "failed"}
        assert shop.statuses() == other.statuses() == {"delivered": 30}
        endpoints.answers["/down/"] = accepts
        with seen.recovery():
            for status in dead:
                apart.manage.run("redeliver", "--status", status, "--since", "1h", "--channel", "webhook")
            wait_for(lambda: set(callbacks(shop)) == {"sent"}, 60, "the callbacks")
    apart.must_balance()
    seen(f"{sum(dead.values())} callbacks tried {tries} times, then dead ({', '.join(dead)}); all told after redeliver")


def ended(shop: Tenant) -> bool:
    """Does no callback wait any more?"""
    return not {"queued", "sending", "in_doubt"} & set(callbacks(shop))


# -- F39


def fill(system: FaultSystem, shop: Tenant, count: int) -> None:
    """``count`` messages of ``shop`` in the bulk lane, complete with acceptance and first event, held by a pause."""
    with psycopg.connect(system.postgres.socket_url) as connection:
        given = {"service": shop.id, "count": count}
        connection.execute(
            "CREATE TEMP TABLE fresh ON COMMIT DROP AS SELECT uuidv7() AS id FROM generate_series(1, %(count)s)", given
        )
        connection.execute(
            'INSERT INTO message (id, service_id, account_id, channel, provider, lane, status, origin, recipient, "to",'
            " reference, ordering_key, idempotency_key, request_id, tags, content, options, metadata, event_sequence,"
            " attempt_count, in_doubt_count, redelivery_count, provider_message_id, error_class, error_code, error_detail,"
            " created_at, updated_at, expires_at)"
            " SELECT id, %(service)s, (SELECT id FROM account WHERE service_id = %(service)s), 'sms', 'sandbox', 2,"
            "  'queued', 'api', '+56912345678', '+56912345678', '', '', '', '', '{}', '{\"text\": \"x\"}', '{}', '{}', 1,"
            "  0, 0, 0, '', '', '', '', chaski_now(), chaski_now(), chaski_now() + interval '1 day' FROM fresh",
            given,
        )
        connection.execute(
            "INSERT INTO acceptance (message_id, service_id, origin, accepted_at)"
            " SELECT id, %(service)s, 'api', chaski_now() FROM fresh",
            given,
        )
        connection.execute(
            "INSERT INTO event (message_id, sequence, service_id, status, at, actor, reason)"
            " SELECT id, 1, %(service)s, 'queued', chaski_now(), '', '' FROM fresh",
            given,
        )
        connection.execute(
            "INSERT INTO pending (message_id, channel, lane, service_id, account_id, due_at, expires_at, blocked,"
            " waiting_for, ordering_key, solitary, suspicion, attempt_count, tries, crash_count, blind_count)"
            " SELECT id, 'sms', 2, %(service)s, (SELECT id FROM account WHERE service_id = %(service)s), chaski_now(),"
            "  chaski_now() + interval '1 day', false, '', '', false, 0, 0, 0, 0, 0 FROM fresh",
            given,
        )
    with psycopg.connect(system.postgres.socket_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE pending, message, event, acceptance")  # as autovacuum will have done by then
        connection.execute("CHECKPOINT")
    busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
    wait_for(lambda: system.query(busy)[0][0] == 0, 120, "the end of what the filling itself costs")


@contextmanager
def filled(system: FaultSystem, shop: Tenant, count: int) -> Iterator[None]:
    """Fill behind a pause, then let go while the block runs; the service is paused again afterwards."""
    system.manage.run("pause", "--service", shop.name)
    fill(system, shop, count)
    system.manage.run("resume", "--service", shop.name)
    try:
        yield
    finally:
        system.manage.run("pause", "--service", shop.name)


def urgent_seconds(shop: Tenant, count: int = 40) -> list[float]:
    """From acceptance to sending, for urgent messages one after the other."""
    ids = [str(uuid7()) for _ in range(count)]
    for id_ in ids:
        shop.send_ids([id_], priority="urgent")
    shop.settled(60)
    sql = "SELECT extract(epoch FROM sent_at - created_at)::float8 FROM message WHERE id = ANY(%s::uuid[])"
    return [row[0] for row in shop.system.query(sql, ids)]


@pytest.mark.row(
    "F39",
    "a backlog of 1,000,000",
    "Valkey flat, urgent lane unaffected; a message costs the database as much at the end as at the start (<= 1.2), and the drain"
    " is as fast (>= 0.75 where autovacuum shares two hyperthreads)",
)
def test_a_backlog_of_a_million_slows_nothing(roomy: FaultSystem, seen: Evidence) -> None:
    bulk = tenant(roomy, ("sms", "sandbox"))
    urgent = tenant(roomy, ("sms", "sandbox"))
    broker = roomy.broker()
    quick = urgent_seconds(urgent)
    memory = broker.info("memory")["used_memory"]
    with filled(roomy, bulk, MILLION):
        wait_for(lambda: waits(roomy, bulk, MILLION - RUNNING_OUT), 120, "the drain at full speed")
        at_the_start = windows(roomy, bulk, MILLION * 2 // 3)
        behind = urgent_seconds(urgent)
        held = broker.info("memory")["used_memory"]
        wait_for(lambda: waits(roomy, bulk, MILLION // 3), 600, "the last third of the backlog")
        at_the_end = windows(roomy, bulk, RUNNING_OUT)
        wait_for(lambda: waits(roomy, bulk, 0), 120, "an empty queue")
    broker.close()
    start, end = (usual_pace(roomy, bulk, each) for each in (at_the_start, at_the_end))
    assert roomy.query("SELECT count(*) FROM message WHERE service_id = %s AND status = 'sent'", bulk.id) == [
        (MILLION,)
    ]
    assert held < memory + 8_000_000
    assert statistics.median(behind) < 2 * statistics.median(quick) + 0.1
    assert end.pages <= 1.2 * start.pages
    # Autovacuum of the history comes in rounds from the middle on, and has the same two hyperthreads.
    assert end.by_work >= 0.75 * start.by_work
    assert end.by_clock >= 0.5 * start.by_clock, "the machine may be busy, the queue must not wait"
    seen(
        f"Valkey {memory / 1e6:.1f} to {held / 1e6:.1f} MB; urgent {statistics.median(quick) * 1000:.0f} and"
        f" {statistics.median(behind) * 1000:.0f} ms (median); pages looked at for a message {start.pages:.0f} in the first third"
        f" and {end.pages:.0f} in the last; sent for the processor time of a thousand yardsticks (a fixed piece of work, measured"
        f" beside), in the better quarter of the time: {start.by_work:,.0f} and {end.by_work:,.0f}"
        f" ({start.by_clock:,.0f} and {end.by_clock:,.0f} a second); all {MILLION:,} sent"
    )
