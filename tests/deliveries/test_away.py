"""A database that is away for now: which errors mean that, and what each part does with a real one of each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import Error as DjangoError
from django.db import connection, transaction

from channels.base import Receipt, ReceiptKind
from chaski.vocabulary import Status
from deliveries.api import verifiers
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.recorder import Recorder, Result
from deliveries.delivery.settle import Settlement
from deliveries.models import ApiKey
from deliveries.retry import Decision, Outcome
from deliveries.sql import is_away
from deliveries.tasks import INFRASTRUCTURE
from tests.api.calls import SMS, Api, problem
from tests.factories import Caller, make_account

#: One SQLSTATE of each cause that passes: read-only, disk full, memory, too many connections, statement and lock timeout,
#: shutdown, starting up, deadlock, serialization, I/O error, connection broken.
AWAY = [
    *("25006", "53100", "53200", "53300", "57014", "55P03", "57P01", "57P03", "40P01", "40001", "58030", "08006"),
    *("25P03", "28P01"),
]
#: And of those that come again with the same statement: a number too large, a constraint, a limit, a name, rights.
OURS = ["22003", "23505", "54000", "42P01", "42501", "0A000"]


def refuse(state: str) -> None:
    """Let the server itself refuse a statement with ``state``."""
    with connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$")


@contextmanager
def read_only() -> Iterator[None]:
    """As a standby, or a primary whose operator said so. Ends with the savepoint, so that the test can end as usual."""
    before = transaction.savepoint()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
    yield
    transaction.savepoint_rollback(before)


@pytest.fixture
def api(shop: Caller) -> Api:
    """A service that can send."""
    make_account("sms")
    return Api(shop)


@pytest.fixture
def engine() -> Iterator[EngineConnection]:
    """A connection as the engine has it."""
    opened = EngineConnection()
    yield opened
    opened.close()


@pytest.mark.parametrize(("state", "away"), [*((state, True) for state in AWAY), *((state, False) for state in OURS)])
@pytest.mark.django_db
def test_the_engine_and_django_agree_on_what_passes(engine: EngineConnection, state: str, away: bool) -> None:
    with pytest.raises(DjangoError) as of_django:
        refuse(state)
    with pytest.raises(psycopg.Error) as of_psycopg, engine.transaction() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{state}'; END $$")
    assert (is_away(of_django.value), is_away(of_psycopg.value)) == (away, away)
    assert isinstance(of_psycopg.value, INFRASTRUCTURE) or not away, "a task comes again"


def test_a_mistake_in_our_own_code_is_not_the_database_s() -> None:
    assert not is_away(ValueError("no"))
    assert is_away(psycopg.OperationalError("connection refused"))


@pytest.mark.parametrize("state", AWAY)
def test_the_api_answers_503_and_when_to_come_again(api: Api, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr("deliveries.intake.accept_one", lambda *_, **__: refuse(state))
    answer = api.post("messages", SMS)
    problem(answer, 503, "unavailable")
    assert int(answer["Retry-After"]) > 0


def test_a_row_that_no_database_takes_is_no_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deliveries.intake.accept_one", lambda *_, **__: refuse("54000"))
    problem(api.post("messages", SMS), 500, "internal")


BATCH = {"messages": [SMS]}
ROW = b'{"channel": "sms", "to": "+56912345678", "text": "x"}\n'
LINES = {"raw": ROW * 3, "content_type": "application/x-ndjson"}


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("messages", {"body": SMS}),
        ("batches", {"body": BATCH}),
        ("batches", LINES),
        ("suppressions", {"body": {"channel": "sms", "to": "+56912345678", "reason": "asked"}}),
    ],
)
def test_a_read_only_database_accepts_nothing_and_says_when_to_come_again(
    api: Api, path: str, options: dict[str, Any]
) -> None:
    with read_only():
        answer = api.post(path, **options)
    problem(answer, 503, "unavailable")
    assert int(answer["Retry-After"]) > 0


def test_a_read_only_database_is_still_read(api: Api) -> None:
    ApiKey.objects.update(last_used_at=None)  # so that the call would note its use
    with read_only():
        assert api.get("messages").status_code == 200


def test_a_receipt_is_not_lost_on_a_read_only_database(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        def greet(self, request: object) -> None: ...

        def verify(self, request: object) -> None: ...

        def parse(self, request: object) -> list[Receipt]:
            return [Receipt("e1", ReceiptKind.DELIVERED, message_id=str(uuid4()))]

    monkeypatch.setattr(verifiers, "verifier", lambda account: verifiers.Verifier(account.pk, time.monotonic(), Told()))
    account = make_account("sms", name="second")
    with read_only():
        answer = api.client.post(f"/receipts/{account.public_id}", b"{}", content_type="application/json")
    problem(answer, 503, "unavailable")
    assert int(answer["Retry-After"]) > 0, "the provider repeats it"


@pytest.mark.django_db(transaction=True)
def test_the_recorder_waits_for_a_read_only_database_and_bisects_nothing_away(
    shop: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    """Read-only errors are no OperationalError of psycopg: they looked like rows that no database takes."""
    settings.CHASKI_SPILL = str(tmp_path)
    recorder, waits = Recorder(lambda: 0), []
    real = Recorder._settle

    def settle(self: Recorder, settlements: Any) -> None:
        with self._connection.transaction() as cursor:
            cursor.execute(f"SET transaction_read_only = {'on' if len(waits) < 3 else 'off'}")
            cursor.execute("INSERT INTO audit (actor, action, target, reason, detail) VALUES ('a', 'b', 'c', '', '{}')")
        real(self, settlements)

    monkeypatch.setattr(Recorder, "_settle", settle)
    monkeypatch.setattr(Recorder, "_wait", lambda _self, seconds: waits.append(seconds))
    now = datetime.now(UTC)
    row = Settlement(uuid4(), 1, uuid4(), 1, now, Outcome(), Decision((Status.SENT,)))
    recorder._write([Result(row, lambda: None), Result(row, lambda: None)])
    recorder._connection.close()
    assert len(waits) == 3
