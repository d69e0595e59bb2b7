"""Times that nobody but a person with SQL can have written hold up no lane."""

from __future__ import annotations

from datetime import datetime

import psycopg
import pytest
from django.db import connection

from deliveries.delivery.claim import Claimer
from deliveries.delivery.database import EngineConnection
from deliveries.delivery.moments import FIRST, LAST
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("infinity", LAST),
        ("-infinity", FIRST),
        ("12000-01-01 00:00+00", LAST),
        ("0044-03-15 00:00+00 BC", FIRST),
        ("2030-01-31 12:00:00.5+00", datetime.fromisoformat("2030-01-31T12:00:00.5+00:00")),
    ],
)
def test_the_engine_claims_beside_a_row_with_such_a_deadline(shop: Caller, written: str, read: datetime) -> None:
    make_account("sms")
    odd, usual = steps.accept(shop.service, 2)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pending SET expires_at = %s::timestamptz WHERE message_id = %s", [written, odd])
    engines = EngineConnection()
    with engines.transaction() as cursor:
        claimed = Claimer().claim(cursor, steps.request(cursor)).messages
    engines.close()
    assert {each.id: each.expires_at for each in claimed}[odd] == read
    assert {each.id for each in claimed} == {odd, usual}


def test_psycopg_alone_would_refuse_them() -> None:
    with connection.cursor() as cursor, pytest.raises(psycopg.DataError):
        cursor.cursor.execute("SELECT 'infinity'::timestamptz").fetchone()
