"""A database that takes connections and never answers: every wait ends, and what it meant is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections

from deliveries.conf import timings
from deliveries.delivery.database import EngineConnection
from deliveries.ledger import balance
from deliveries.models import Message
from deliveries.postgresql import base
from deliveries.postgresql.base import PROBE_SECONDS, SchemaEditor
from deliveries.postgresql.bounded import BoundedConnection, NoAnswer
from deliveries.sql import is_away
from tests.api.calls import SMS
from tests.api.server import Server
from tests.deliveries.blackhole import BlackHole
from tests.factories import make_account, make_caller
from tests.processes.system import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
CONNECT_SECONDS: float = settings.DATABASES["default"]["OPTIONS"]["connect_timeout"]
WEB_SECONDS: float = settings.DATABASES["default"]["OPTIONS"]["answer_seconds"]
#: What the tests wait for, instead of the usual 7 and 17 s.
SHORT = 3.0
#: What a loaded machine may add.
SLACK = 3.0


@pytest.fixture
def hole() -> Iterator[BlackHole]:
    """Between us and the database."""
    with BlackHole() as made:
        yield made


@pytest.fixture
def engine(hole: BlackHole, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineConnection]:
    """A connection of the engine, through the hole."""
    real = connections["default"].get_connection_params
    connection.ensure_connection()  # the test's own stays outside
    through = {"host": "127.0.0.1", "port": hole.port, "answer_seconds": SHORT}
    monkeypatch.setattr(connections["default"], "get_connection_params", lambda: {**real(), **through})
    opened = EngineConnection()
    yield opened
    opened.close()


class Took:
    """How long a block took."""

    def __enter__(self) -> Took:
        self._begun = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self.seconds = time.monotonic() - self._begun


def test_a_statement_of_the_engine_without_an_answer_ends_and_the_next_one_connects_anew(
    hole: BlackHole, engine: EngineConnection
) -> None:
    with engine.transaction() as cursor:
        cursor.execute("SELECT 1")
    hole.swallow(b"SELECT 2")
    with Took() as took, pytest.raises(NoAnswer, match="no answer within") as error, engine.transaction() as cursor:
        cursor.execute("SELECT 2")
    assert is_away(error.value)
    assert SHORT <= took.seconds < SHORT + SLACK
    hole.heal()
    with engine.transaction() as cursor:
        cursor.execute("SELECT 3")
        assert cursor.fetchone() == (3,)


def test_a_connection_that_is_taken_and_never_answered_ends(hole: BlackHole, engine: EngineConnection) -> None:
    hole.swallow()
    with Took() as took, pytest.raises(psycopg.OperationalError) as error, engine.transaction():
        pass
    assert is_away(error.value)
    assert took.seconds < CONNECT_SECONDS + SLACK


def test_a_commit_without_an_answer_is_an_error_and_may_have_happened(
    hole: BlackHole, engine: EngineConnection
) -> None:
    hole.swallow(b"COMMIT")
    with pytest.raises(NoAnswer), engine.transaction() as cursor:
        cursor.execute("INSERT INTO periodic_slot (job, slot) VALUES ('of a test', now())")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM periodic_slot WHERE job = 'of a test'")
        assert cursor.rowcount == 1


def test_an_error_that_the_server_tells_is_told_as_it_is(engine: EngineConnection) -> None:
    def slow() -> None:
        with engine.transaction() as cursor:
            cursor.execute("SET LOCAL statement_timeout = '50ms'")
            cursor.execute("SELECT pg_sleep(5)")

    with pytest.raises(psycopg.errors.QueryCanceled):
        slow()


def test_a_web_request_in_a_black_hole_gets_503_in_time_and_the_repeat_the_same_message(
    hole: BlackHole, tmp_path: Path
) -> None:
    caller = make_caller("shop")
    make_account("sms")
    with Server(hole.database_url(SHORT), tmp_path / "log", workers=1) as server:

        def send(key: str) -> tuple[int, str, float]:
            with Took() as took:
                headers = {**caller.headers, "Idempotency-Key": key}
                answer = server.request("POST", "/api/v1/messages", headers=headers, json=SMS)
            if answer.status == 503:
                assert answer.json()["code"] == "unavailable"
                assert int(answer.headers["Retry-After"]) > 0
            return answer.status, answer.json().get("id", ""), took.seconds

        assert send("before")[0] == 202
        hole.swallow(b"around the commit")  # the statement with it, which is its own transaction
        status, _, seconds = send("around the commit")
        assert status == 503
        assert seconds < SHORT + CONNECT_SECONDS + SLACK, "Django tries once to connect anew"
        status, _, seconds = send("idle")
        assert (status, seconds < PROBE_SECONDS + CONNECT_SECONDS + SLACK) == (503, True), seconds
        hole.heal()
        status, told, _ = send("around the commit")
        assert status == 200, "it had been committed: the answer alone was lost"
        assert Message.objects.filter(pk=told).count() == 1
        assert send("idle")[0] == 202
    assert Message.objects.count() == 3


def test_an_idle_connection_of_the_web_is_probed_for_a_moment_only(
    hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "FRESH_SECONDS", 0.0)  # the last answer is long ago
    wrapper = connections["default"].copy()
    wrapper.settings_dict = {**wrapper.settings_dict, "HOST": "127.0.0.1", "PORT": str(hole.port)}
    wrapper.ensure_connection()
    assert wrapper.is_usable()
    hole.swallow()
    with Took() as took:
        assert not wrapper.is_usable()
    assert took.seconds < PROBE_SECONDS + SLACK
    with pytest.raises(OperationalError):
        wrapper.cursor().execute("SELECT 1")
    wrapper.close()


def test_what_may_take_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations and the ledger lift the server's limit, or may; ours would cut them off."""
    connection.ensure_connection()
    held: BoundedConnection = connection.connection
    assert held.answer_seconds == WEB_SECONDS
    with SchemaEditor(connection) as editor:
        editor.execute("SELECT 1")
        assert held.answer_seconds is None
    with balance._snapshot():
        assert held.answer_seconds is None
    assert held.answer_seconds == WEB_SECONDS


def test_the_server_s_own_limits_come_first(db: None) -> None:
    """Else a statement that is slow would be cut off with its end unknown, instead of being told to stop."""
    opened = EngineConnection()
    with opened.transaction() as cursor:
        cursor.execute("SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float8")
        (of_the_engine,) = cursor.fetchone()
    opened.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM current_setting('statement_timeout')::interval)::float8")
        (of_the_web,) = cursor.fetchone()
    assert (of_the_engine, of_the_web) == (5, 15)
    assert of_the_engine < timings().answer_seconds < 10
    assert of_the_web < WEB_SECONDS
    assert WEB_SECONDS + CONNECT_SECONDS <= 20


def test_a_connection_that_was_well_a_moment_ago_is_not_asked_unless_the_kernel_knows_of_its_end(
    hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = connections["default"].copy()
    wrapper.settings_dict = {**wrapper.settings_dict, "HOST": "127.0.0.1", "PORT": str(hole.port)}
    wrapper.ensure_connection()
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    hole.swallow(b"SELECT 1")  # nobody would answer it
    assert wrapper.is_usable()
    hole.heal()
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    wait_for(lambda: not wrapper.connection.was_well(60), 5, "the notice of the end")
    monkeypatch.setattr(base, "FRESH_SECONDS", 60.0)
    assert not wrapper.is_usable()
    wrapper.close()


def test_who_vanishes_from_the_network_is_noticed_by_the_kernel() -> None:
    """No packet can be dropped here without rights, so this looks at what libpq was told."""
    connection.ensure_connection()
    told = connection.connection.info.get_parameters()
    assert {name: told[name] for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")} == {
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
    }
    assert told["tcp_user_timeout"] == "10000"
