"""What a migration may not do to a live database beside the release before: `problems` of one migration.

squawk (https://squawkhq.com, configured in `.squawk.toml`) reads the SQL; the rules here are for what SQL does not show: what the
code of the release before still needs of the schema, and what becomes of a migration that is cut off. Used by the test beside.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently, ValidateConstraint
from django.db import connection, models
from django.db.migrations import Migration
from django.db.migrations.operations import (
    AddField,
    AlterField,
    RemoveField,
    RunPython,
    RunSQL,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.fields import NOT_PROVIDED

ROOT = Path(__file__).resolve().parents[2]
SQUAWK = Path(sys.executable).with_name("squawk")
#: Run by databases in use, each with the SHA-256 of its file: never edited.
#: What they made was empty, or was looked at by these rules before.
FROZEN = {
    "0001_initial": "c16360cff9a01ceae6517ea03722b750c6ebbe246898960a7e9375ae71049576",
    "0002_partitions": "6544f2c4ef72c21dcf1baa713524a7cf38a2ee077e4e42355cb538c04c68688b",
    "0003_message_permissions": "b4ee4c265c526cff5bd2549968b00dbfd829f45d9d7a777ebe34070cfd5e4fbe",
    "0004_watch": "94ae18fc8533f75b6ae645bf8d110d3fabda89adf8b42bca5863c4417bc4da26",
    "0005_written_at_and_inquiry": "d638a12bc500fb0bc9e9176024de9ca561f2abe8d0cb75e4e91e93c57e561238",
    "0006_parked": "ff9883d1a7abf509941428a74cd35820f4ab910608c75b3bc55e393e3cd5837d",
    "0007_told": "2ccc511a1445220c8841266510ca5005c0714a08b157b566821105ec28358e23",
    "0008_lineage": "b96a19189886facf5be8ce7444be5fc6bf23c1583db38ad327f5499db7423904",
    "0009_shares": "674f137b3a43fabb37ff1eeb12ff91b6e07d287ae0dd09abaa2ee34bcb08915c",
    "0010_breakers": "6f2eed0b0502ec06b22bc5dbcb56774b3555452744883818ff570c421303cd30",
}
#: Migration -> rules that it may break, each with the reason. The place for the second half of removing a column: when no
#: code of the release before reads or writes it any more.
ACCEPTED: dict[str, dict[str, str]] = {}
#: No index can be made on these in one statement without locking their writers out.
PARTITIONED = {"message", "attempt", "event", "acceptance", "told"}
#: What nobody waits for, and what can be run again after it was cut off: all that a migration without a transaction may do.
UNLOCKED = (AddIndexConcurrently, RemoveIndexConcurrently, ValidateConstraint, RunPython)
_WRITES = re.compile(r"^\s*(UPDATE|DELETE|INSERT|TRUNCATE|COPY|MERGE)\b", re.IGNORECASE | re.MULTILINE)


def problems(migration: Migration, before: ProjectState) -> list[str]:
    """Every rule that ``migration`` breaks, as "rule: what and what to do". ``before`` is the state that it starts from."""
    accepted = ACCEPTED.get(migration.name, {})
    found = [*squawk(sql(migration, before)), *_own(migration, before)]
    return [problem for problem in found if problem.partition(":")[0] not in accepted]


def sql(migration: Migration, before: ProjectState) -> str:
    """The statements that it runs, as `manage.py sqlmigrate` prints them."""
    own = connection.copy()  # outside of a test's transaction, where CONCURRENTLY is refused
    with closing(own), own.schema_editor(collect_sql=True, atomic=migration.atomic) as editor:
        migration.apply(before.clone(), editor, collect_sql=True)
    statements = "\n".join(editor.collected_sql)
    return f"BEGIN;\n{statements}\nCOMMIT;\n" if migration.atomic else statements


def squawk(statements: str) -> list[str]:
    """What squawk finds. Fails when it cannot read them."""
    command = [
        str(SQUAWK),
        "--config",
        str(ROOT / ".squawk.toml"),
        "--reporter",
        "json",
        "--stdin-filepath",
        "migration.sql",
    ]
    done = subprocess.run(command, input=statements, capture_output=True, text=True, check=False)
    assert done.stdout, f"squawk said nothing: {done.stderr}"
    return [f"{found['rule_name']}: {found['message']} {found.get('help') or ''}" for found in json.loads(done.stdout)]


def _own(migration: Migration, before: ProjectState) -> Iterator[str]:
    if not migration.atomic:
        yield from _unprotected(migration)
    state = before.clone()
    for operation in migration.operations:
        for inner in _in_the_database(operation):
            yield from _of_one(inner, state, atomic=migration.atomic)
        yield from _forgotten(operation, state)
        operation.state_forwards(migration.app_label, state)


def _in_the_database(operation: Operation) -> Sequence[Operation]:
    return operation.database_operations if isinstance(operation, SeparateDatabaseAndState) else (operation,)


def _unprotected(migration: Migration) -> Iterator[str]:
    for operation in migration.operations:
        if not all(isinstance(inner, UNLOCKED) for inner in _in_the_database(operation)):
            yield (
                f"needs-transaction: {operation.describe()} stands in a migration without a transaction, which is not rolled"
                " back when it is cut off and waits for locks without end: move it to one with atomic = True"
            )


def _of_one(operation: Operation, state: ProjectState, *, atomic: bool) -> Iterator[str]:
    if isinstance(operation, AddField) and _needed(operation.field):
        yield (
            f"needs-db-default: {operation.model_name}.{operation.name} is not null and the database has no default for it:"
            " the release before inserts without it and fails; give it db_default, or null=True"
        )
    if isinstance(operation, AlterField) and _needed(operation.field) and not _needed(_field(operation, state)):
        yield (
            f"needs-db-default: {operation.model_name}.{operation.name} loses its default or becomes not null, and the"
            " release before may insert without it; do it a release later"
        )
    if isinstance(operation, RunPython) and atomic:
        yield (
            "needs-batches: RunPython in a transaction holds every row that it changes until its end; set atomic = False and"
            " commit in batches"
        )
    if isinstance(operation, RunSQL) and _WRITES.search(_text(operation)):
        yield "needs-batches: RunSQL changes rows, all at once; change them in batches, by RunPython in a migration of its own"
    if isinstance(operation, AddIndexConcurrently) and _table(operation, state) in PARTITIONED:
        yield (
            f"partitioned-table: {_table(operation, state)} is partitioned, where CONCURRENTLY is refused; CREATE INDEX ON"
            " ONLY it, CONCURRENTLY on each partition, and ATTACH them"
        )


def _forgotten(operation: Operation, state: ProjectState) -> Iterator[str]:
    """A column that stays while the code here forgets it must fill itself."""
    if not isinstance(operation, SeparateDatabaseAndState):
        return
    for inner in operation.state_operations:
        if isinstance(inner, RemoveField) and _needed(_field(inner, state)):
            yield (
                f"needs-db-default: {inner.model_name}.{inner.name} stays in the database, not null and without a default,"
                " and the code here inserts without it; give it db_default in the migration before"
            )


def _needed(field: models.Field[Any, Any]) -> bool:
    """Does an INSERT that leaves the column out fail?"""
    filled = getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED or isinstance(field, models.AutoField)
    return not (field.null or filled or field.many_to_many)


def _field(operation: AlterField | RemoveField, state: ProjectState) -> models.Field[Any, Any]:
    return state.models["deliveries", operation.model_name_lower].get_field(operation.name)


def _table(operation: AddIndexConcurrently, state: ProjectState) -> str:
    return str(
        state.models["deliveries", operation.model_name_lower].options.get("db_table", operation.model_name_lower)
    )


def _text(operation: RunSQL) -> str:
    given = operation.sql
    return given if isinstance(given, str) else "\n".join(each if isinstance(each, str) else each[0] for each in given)
