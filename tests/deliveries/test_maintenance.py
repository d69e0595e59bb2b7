"""Periodic work: done once per slot however many beats there are, and partitions are there before they are needed."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import pytest
from django.db import connection

from deliveries import maintenance
from deliveries.models import Heartbeat, Idempotency
from tests.deliveries import steps
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db
TABLES = ("message", "attempt", "event", "acceptance", "told")


def partitions(table: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", [table])
        return {row[0] for row in cursor.fetchall()}


def test_two_beats_do_the_work_of_a_minute_once() -> None:
    assert "idempotency_keys" in maintenance.run()
    assert "idempotency_keys" not in maintenance.run()
    with steps.later(timedelta(minutes=1)):
        assert "idempotency_keys" in maintenance.run()


def test_keys_are_kept_for_the_promised_time_and_then_forgotten(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service, key="k")
    with steps.later(timedelta(hours=73)):
        maintenance.run()
        assert Idempotency.objects.exists()
    with steps.later(timedelta(hours=97)):
        maintenance.run()
        assert not Idempotency.objects.exists()


def test_processes_that_are_gone_for_a_day_are_forgotten() -> None:
    Heartbeat.objects.create(name="old", kind="worker", seen_at=steps.now() - timedelta(days=2))
    Heartbeat.objects.create(name="new", kind="worker", seen_at=steps.now())
    maintenance.run()
    assert [beat.name for beat in Heartbeat.objects.all()] == ["new"]


def test_a_missing_month_is_made_again_for_each_table_and_none_twice() -> None:
    before = {table: partitions(table) for table in TABLES}
    assert all(len(months) == 5 for months in before.values()), "last month, this one, three to come"
    last = max(before["message"])
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {last}")
    assert maintenance.run()["partitions"] == 1
    assert {table: partitions(table) for table in TABLES} == before


def test_a_table_that_is_added_later_gets_its_months_too() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE later (id uuid PRIMARY KEY) PARTITION BY RANGE (id)")
        cursor.execute("CREATE TABLE numbered (id bigint PRIMARY KEY) PARTITION BY RANGE (id)")
    assert maintenance.run()["partitions"] == 5
    assert not partitions("numbered"), "only what is partitioned by message id is partitioned by month"


def test_what_is_told_of_a_month_has_its_place_where_the_months_events_have_theirs() -> None:
    """A database that has run for long: its events go back further than the months that are made ahead."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE told")
        cursor.execute(
            "DO $$ BEGIN EXECUTE format('CREATE TABLE event_y2020m01 PARTITION OF event FOR VALUES FROM (%L) TO (%L)',"
            " uuid7_floor('2020-01-01+00'), uuid7_floor('2020-02-01+00')); END $$"
        )
        cursor.execute(import_module("deliveries.migrations.0007_told").TABLE)
        cursor.execute(
            "INSERT INTO told VALUES (uuid7_floor('2020-01-15'), 1, 1, uuidv7()) RETURNING tableoid::regclass::text"
        )
        assert cursor.fetchone()[0] == "told_y2020m01"
    assert {name.removeprefix("told") for name in partitions("told")} == {
        name.removeprefix("event") for name in partitions("event")
    }


def test_each_month_has_the_indexes_of_its_table() -> None:
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute("SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", [table])
            wanted = cursor.fetchone()[0]
            for month in partitions(table):
                cursor.execute("SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", [month])
                assert cursor.fetchone()[0] == wanted, month


def test_a_message_at_the_border_of_two_months_finds_its_partition() -> None:
    with connection.cursor() as cursor:
        for offset in ("0", "-1 millisecond"):
            cursor.execute(
                "INSERT INTO acceptance (message_id, service_id, origin, accepted_at)"
                " VALUES (uuid7_floor(date_trunc('month', now(), 'UTC') + %s::interval), 1, 'api', now())"
                " RETURNING tableoid::regclass::text",
                [offset],
            )
            found = cursor.fetchone()[0]
            cursor.execute(
                "SELECT 'acceptance' || to_char((date_trunc('month', now(), 'UTC') + %s::interval)"
                " AT TIME ZONE 'UTC', '\"_y\"YYYY\"m\"MM')",
                [offset],
            )
            assert found == cursor.fetchone()[0]
