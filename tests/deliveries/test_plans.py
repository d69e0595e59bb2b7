"""The statements of the hot path read what they need and nothing else, whatever the planner believes.

Each is planned as the engine's sessions do (no sequential scans), with its parameters unknown, as after the fifth
execution of a prepared statement. A scan must be a look-up by its index, or end at a LIMIT.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from deliveries import lifecycle, reading, receipts, relay, restoring
from deliveries.delivery import begin, blocked_rows, claim, heads, inquiries, locked, settle, sweep, turns
from deliveries.delivery.database import SESSION
from tests.deliveries.backlog import fill
from tests.factories import Caller, make_account

pytestmark = pytest.mark.django_db

STATEMENTS = {
    "claim by turn": claim.CLAIM_DUE,
    "claim by id": claim.CLAIM_IDS,
    "turns": turns.TURNS,
    "claim suspects": claim.CLAIM_SUSPECTS,
    "begin": begin.BEGIN,
    "settle": settle.SETTLE,
    "free": locked.FREE,
    "learned late": settle.LATE,
    "inquiries": inquiries.TAKE,
    "release": settle.RELEASE,
    "apply": lifecycle.APPLY,
    "ended leases": sweep.ENDED,
    "late": sweep.LATE,
    "expire": sweep.REMOVE,
    "unblock": heads.UNBLOCK,
    "blocked heads": blocked_rows.LOOK,
    "mark blocked heads": blocked_rows.MARK,
    "clear blocked heads": blocked_rows.CLEAR,
    "heads that step aside": blocked_rows.TAKE,
    "leave the order": blocked_rows.LEAVE,
    "rest behind a head": blocked_rows.REST,
    "heads that are waited for": reading._AHEADS,
    "due": relay.DUE,
    "receipts": receipts.WAITING,
    "mark receipts": receipts.MARK,
    "leave receipts": receipts.LATER,
    "places of receipts": receipts.PLACES,
    "statuses for receipts": receipts.STATUSES,
    "arm what waits": restoring.WAITING,
    "arm what is leased": restoring.LEASED,
}
LARGE = re.compile(r"(pending|receipt|inquiry|(message|attempt|event)(_y\d+m\d+)?)\Z")


@pytest.fixture
def _backlog(shop: Caller) -> None:
    make_account("sms")
    fill(shop.service.pk, 20_000)


@pytest.mark.usefixtures("_backlog")
@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_more_than_it_needs(name: str) -> None:
    reading = read_through(STATEMENTS[name])
    assert not reading, f"{name} reads through {reading}"


@pytest.mark.usefixtures("_backlog")
def test_the_picture_before_arming_reads_the_queue_and_looks_up_what_belongs_to_it() -> None:
    reading = read_through(restoring.GROUPS)
    assert [told.split()[0] for told in reading] == ["pending"], f"it reads through {reading}"


@pytest.mark.usefixtures("_backlog")
def test_what_expires_at_once_is_not_sorted_for_each_few_hundred_of_it() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pending SET expires_at = expires_at - interval '2 days'")
        cursor.execute("ANALYZE pending")
    assert "Sort" not in [node["Node Type"] for node, _ in nodes(generic_plan(sweep.LATE))]


@pytest.mark.usefixtures("_backlog")
@pytest.mark.parametrize("name", ["claim by turn", "claim suspects"])
def test_a_claim_takes_a_backlog_in_the_order_of_an_index_and_never_sorts_it(name: str) -> None:
    """Of retries, say, that come due in another order than they lie on the disk: the planner would rather read all of them."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pending SET due_at = due_at - random() * interval '1 hour'")
        cursor.execute("ANALYZE pending")
    sorts = [node for node, _ in nodes(generic_plan(STATEMENTS[name])) if "Sort" in node["Node Type"]]
    assert "pending" not in [below.get("Relation Name") for node in sorts for below, _ in nodes(node)]


@pytest.mark.usefixtures("_backlog")
def test_the_check_finds_a_statement_that_reads_through_a_table() -> None:
    plan = generic_plan("SELECT count(*) FROM pending WHERE lease_until < chaski_now()")
    assert any(_reads_through(node, parents) for node, parents in nodes(plan))


def read_through(sql: str) -> list[str]:
    """What ``sql`` reads from one end to the other."""
    return [_told(node) for node, parents in nodes(generic_plan(sql)) if _reads_through(node, parents)]


def generic_plan(sql: str) -> dict[str, Any]:
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    with connection.cursor() as cursor:
        cursor.execute(SESSION)
        cursor.execute("EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + re.sub(r"%\((\w+)\)s", number, sql))
        found = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    yield plan, parents
    for child in plan.get("Plans", ()):
        yield from nodes(child, (*parents, plan["Node Type"]))


def _reads_through(node: dict[str, Any], parents: tuple[str, ...]) -> bool:
    if not LARGE.match(node.get("Relation Name", "")) or "Scan" not in node["Node Type"]:
        return False
    if node["Node Type"] == "Seq Scan":
        return True
    ordered_to_a_limit = "Limit" in parents[-3:] and "Sort" not in parents[-3:]
    if "attempt" in node["Relation Name"] and node.get("Index Name", "").endswith("_message_id_idx"):
        return False  # the partial index of open attempts, which are few
    return "Index Cond" not in node and not ordered_to_a_limit and node["Node Type"] != "Bitmap Heap Scan"


def _told(node: dict[str, Any]) -> str:
    return f"{node['Relation Name']} by {node.get('Index Name', node['Node Type'])}"
