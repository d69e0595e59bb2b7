"""ops/health.py: what each health check looks at, against a real server and a real database."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from contextlib import closing
from types import ModuleType
from typing import Any

import psycopg
import pytest
from django.db import connection

from channels.smpp_gateway.server import running
from config.ports import any_free
from deliveries.delivery.database import EngineConnection
from deliveries.heartbeat import beat as leave_a_sign
from deliveries.heartbeat import process_name
from tests.containers.compose import ROOT

SLOT = "INSERT INTO periodic_slot (job, slot) VALUES ('minute', chaski_now() - make_interval(secs => %s))"
AGE = "UPDATE heartbeat SET seen_at = chaski_now() - interval '1 minute'"


@pytest.fixture(scope="module")
def health() -> ModuleType:
    """The script, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("ops_health", ROOT / "ops" / "health.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def database(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL names the database of the tests."""
    parameters = {
        name: value for name, value in connection.get_connection_params().items() if isinstance(value, (str, int))
    }
    known = ("host", "port", "user", "password", "dbname")
    conninfo = psycopg.conninfo.make_conninfo(**{name: parameters[name] for name in known if parameters.get(name)})
    monkeypatch.setenv("DATABASE_URL", conninfo)


def execute(sql: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


@pytest.mark.parametrize(
    ("kind", "name"), [("worker", f"worker1@{socket.gethostname()}"), ("relay", process_name("relay"))]
)
def test_a_worker_and_a_relay_are_healthy_while_they_leave_signs(
    health: ModuleType, database: None, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    engine = EngineConnection()
    with closing(engine):
        leave_a_sign(engine, "worker1@elsewhere", kind)
        assert health.main([kind]) == 1
        assert f"no {kind} of host" in capsys.readouterr().err
        leave_a_sign(engine, name, kind)
        assert health.main([kind]) == 0
        execute(AGE)
        assert health.main([kind]) == 1


def test_beat_is_healthy_while_the_periodic_work_is_done(health: ModuleType, database: None) -> None:
    assert health.main(["beat"]) == 1
    execute(SLOT, 400)
    assert health.main(["beat"]) == 1
    execute(SLOT, 100)
    assert health.main(["beat"]) == 0


def test_a_database_that_is_away_is_said_and_is_no_traceback(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgres://chaski@127.0.0.1:{any_free()}/chaski")
    assert health.main(["worker"]) == 1
    assert "the database cannot be asked" in capsys.readouterr().err


def test_web_is_asked_under_its_public_name(
    health: ModuleType, live_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHASKI_PUBLIC_URL", "https://localhost:8443")
    health.web(live_server.url)
    monkeypatch.setenv("CHASKI_PUBLIC_URL", "https://not-allowed.example")
    with pytest.raises(health.Unhealthy, match="answered 400"):
        health.web(live_server.url)


def test_a_gateway_is_healthy_while_it_answers(health: ModuleType) -> None:
    async def ask() -> None:
        async with running(list) as gateway:
            await asyncio.to_thread(health.smpp, gateway.url)
        with pytest.raises(health.Unhealthy, match="gave no answer"):
            await asyncio.to_thread(health.smpp, gateway.url)

    asyncio.run(ask())


def test_flower_that_is_not_there_is_unhealthy(health: ModuleType) -> None:
    with pytest.raises(health.Unhealthy, match="gave no answer"):
        health.flower(f"http://127.0.0.1:{any_free()}")


def test_it_wants_to_be_told_what_to_look_at(health: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main([]) == 2
    assert "web|worker|relay|beat|flower|smpp" in capsys.readouterr().err
