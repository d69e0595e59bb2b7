"""Every migration that is not released yet is safe on a live database; the linter fails on those that are known not to be."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently
from django.db import connection, migrations, models
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.functions import Now

from tests.migrations import lint

pytestmark = pytest.mark.django_db


def loader() -> MigrationLoader:
    return MigrationLoader(connection, replace_migrations=False)


def unreleased() -> list[str]:
    names = sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "deliveries")
    count = len(lint.FROZEN)
    assert names[:count] == list(lint.FROZEN), "a released migration was renamed or removed"
    return names[count:]


@pytest.mark.parametrize(("name", "digest"), lint.FROZEN.items())
def test_a_released_migration_is_never_edited(name: str, digest: str) -> None:
    found = hashlib.sha256((lint.ROOT / "deliveries" / "migrations" / f"{name}.py").read_bytes()).hexdigest()
    assert found == digest, "databases in use have run it as it was: write a new one"


def test_every_partitioned_table_is_known() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'p'")
        assert {row[0] for row in cursor.fetchall()} == lint.PARTITIONED


@pytest.mark.parametrize("name", unreleased())
def test_a_migration_that_is_not_released_is_safe(name: str) -> None:
    loaded = loader()
    key = ("deliveries", name)
    assert lint.problems(loaded.disk_migrations[key], loaded.project_state(key, at_end=False)) == []


def test_no_exception_outlives_its_migration() -> None:
    assert set(lint.ACCEPTED) <= set(unreleased())


def made(*operations: Operation, atomic: bool = True) -> Migration:
    """A migration that somebody might write."""
    migration = Migration("0099_made", "deliveries")
    migration.operations = list(operations)
    migration.atomic = atomic
    return migration


def now() -> ProjectState:
    """What all migrations there are lead to."""
    state: ProjectState = loader().project_state()
    return state


def rules(*operations: Operation, atomic: bool = True) -> set[str]:
    """The names of the rules that these operations break."""
    return {problem.partition(":")[0] for problem in lint.problems(made(*operations, atomic=atomic), now())}


def add(name: str, field: models.Field[Any, Any]) -> Operation:
    return migrations.AddField("pause", name, field)


def alter(model: str, name: str, field: models.Field[Any, Any]) -> Operation:
    return migrations.AlterField(model, name, field)


DUE = models.Index(fields=["claimed_at"], name="heartbeat_claimed")
LONGER = models.CheckConstraint(condition=models.Q(value__gt=""), name="pause_names_something")
UNSAFE: dict[str, tuple[str, list[Operation]]] = {
    "an index that locks writers out": (
        "require-concurrent-index-creation",
        [migrations.AddIndex("heartbeat", DUE)],
    ),
    "a column that is not null": (
        "adding-required-field",
        [migrations.RunSQL("ALTER TABLE pause ADD COLUMN why text NOT NULL")],
    ),
    "a column that only Django has a default for": ("needs-db-default", [add("why", models.TextField(default=""))]),
    "a column renamed": ("renaming-column", [migrations.RenameField("pause", "actor", "who")]),
    "a column dropped": ("ban-drop-column", [migrations.RemoveField("pause", "actor")]),
    "a type changed": ("changing-column-type", [alter("batch", "accepted", models.BigIntegerField(default=0))]),
    "a foreign key that is checked at once": (
        "adding-foreign-key-constraint",
        [add("service", models.ForeignKey("deliveries.service", models.CASCADE, null=True))],
    ),
    "a column that becomes not null": (
        "adding-not-nullable-field",
        [alter("heartbeat", "claimed_at", models.DateTimeField(db_default=Now()))],
    ),
    "a column that becomes not null without a default": (
        "needs-db-default",
        [alter("heartbeat", "claimed_at", models.DateTimeField())],
    ),
    "a default dropped": ("needs-db-default", [alter("pause", "created_at", models.DateTimeField())]),
    "a table renamed": ("renaming-table", [migrations.AlterModelTable("pause", "held")]),
    "a table dropped": ("ban-drop-table", [migrations.DeleteModel("pause")]),
    "a check of all rows": ("constraint-missing-not-valid", [migrations.AddConstraint("pause", LONGER)]),
    "a unique constraint": (
        "disallowed-unique-constraint",
        [migrations.AddConstraint("pause", models.UniqueConstraint(fields=["actor"], name="one_each"))],
    ),
    "an index dropped": (
        "require-concurrent-index-deletion",
        [migrations.RemoveIndex("audit", "audit_target")],
    ),
    "rows changed in one transaction": ("needs-batches", [migrations.RunPython(lambda apps, editor: None)]),
    "rows changed by one statement": ("needs-batches", [migrations.RunSQL("UPDATE message SET reference = ''")]),
    "a column that the code forgets and nothing fills": (
        "needs-db-default",
        [migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("suppression", "reason")])],
    ),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_an_unsafe_migration_is_noticed(what: str) -> None:
    rule, operations = UNSAFE[what]
    assert rule in rules(*operations)


@pytest.mark.parametrize(
    ("rule", "operation"),
    [
        ("needs-transaction", add("why", models.TextField(null=True))),
        (
            "partitioned-table",
            AddIndexConcurrently("message", models.Index(fields=["error_code"], name="message_error")),
        ),
    ],
)
def test_what_is_unsafe_without_a_transaction_is_noticed(rule: str, operation: Operation) -> None:
    assert rule in rules(operation, atomic=False)


SAFE: dict[str, tuple[bool, Operation]] = {
    "a column that may be null": (True, add("why", models.TextField(null=True))),
    "a column with the database's default": (True, add("why", models.TextField(db_default="", default=""))),
    "an index made beside the writers": (False, AddIndexConcurrently("heartbeat", DUE)),
    "a check of new rows only": (True, AddConstraintNotValid("pause", LONGER)),
    "a table": (
        True,
        migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True)), ("word", models.TextField())]),
    ),
    "rows changed in batches": (False, migrations.RunPython(lambda apps, editor: None)),
    "a column that the code forgets and the database fills": (
        True,
        migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("pause", "created_at")]),
    ),
}


@pytest.mark.parametrize("what", SAFE)
def test_a_safe_migration_passes(what: str) -> None:
    atomic, operation = SAFE[what]
    assert lint.problems(made(operation, atomic=atomic), now()) == []


def test_an_exception_is_for_one_rule_of_one_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "ACCEPTED", {"0099_made": {"ban-drop-column": "nothing reads it since 1.1"}})
    assert rules(migrations.RemoveField("pause", "actor")) == set()
    assert rules(migrations.RenameField("pause", "actor", "who")) == {"renaming-column"}
