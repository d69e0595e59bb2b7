"""Prepared statements on Django's connection, which may be the first to use it after the server was gone."""

from __future__ import annotations

import pytest
from django.db import connection

from deliveries.postgresql.bounded import BoundedConnection
from deliveries.postgresql.prepared import prepared

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_connection_that_died_since_the_last_request_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    connection.health_check_enabled, connection.health_check_done = True, False  # as at the begin of a request
    with BoundedConnection.connect(**connection.get_connection_params(), autocommit=True) as operator:
        operator.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])
    with prepared() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
