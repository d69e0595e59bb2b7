"""F44: fifty clients at once with one idempotency key, also while the web process dies: one message."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from chaski.errors import ChaskiError, IdempotencyConflict
from tests.faults.evidence import Evidence
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

AT_ONCE = 50


@pytest.fixture(scope="module")
def shop(running: FaultSystem) -> Tenant:
    """A service with an SMS account at the simulator."""
    return tenant(running, running.twilio())


def told(shop: Tenant, key: str, text: str = "x", *, patience: float = 0.0) -> str:
    """The id that one client is told; it repeats for ``patience`` seconds. ``conflict`` for another's key."""
    until = time.monotonic() + patience
    while True:
        try:
            return str(shop.client.send("sms", "+56912345678", text=text, key=key).id)
        except IdempotencyConflict:
            return "conflict"
        except ChaskiError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)  # as any client would


def rows(shop: Tenant, key: str) -> int:
    """Messages with this key."""
    sql = "SELECT count(*) FROM message WHERE service_id = %s AND idempotency_key = %s"
    return int(shop.system.query(sql, shop.id, key)[0][0])


@pytest.mark.row("F44", "50 parallel requests with one key", "one message, sent once; another body is a conflict")
def test_fifty_at_once_with_one_key_make_one_message(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    same, different = uuid4().hex, uuid4().hex
    with ThreadPoolExecutor(AT_ONCE) as pool:
        alike = set(pool.map(lambda _: told(shop, same), range(AT_ONCE)))
        unlike = Counter(pool.map(lambda n: told(shop, different, f"no. {n}"), range(AT_ONCE)))
    assert len(alike) == 1
    assert unlike.pop("conflict") == AT_ONCE - 1
    assert (rows(shop, same), rows(shop, different)) == (1, 1)
    assert set(shop.settled()) <= {"sent", "delivered"}
    ids = [*alike, *unlike]
    assert system.accepted(*ids) == dict.fromkeys(ids, 1)
    seen("one id for all 50, sent once; 49 conflicts for 50 bodies")


@pytest.mark.row("F44", "50 parallel requests with one key while the web process is killed", "one message, sent once")
def test_fifty_at_once_with_one_key_through_a_dying_web_process(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    keys = [uuid4().hex for _ in range(4)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = {key: [pool.submit(told, shop, key, patience=60) for _ in range(AT_ONCE)] for key in keys}
        wait_for(lambda: any(rows(shop, key) for key in keys), 20, "the first row")
        pid = system.kill("web")
        with seen.recovery():
            ids = {key: {answer.result(90) for answer in group} for key, group in answers.items()}
    system.restarted("web", pid)
    assert {key: len(found) for key, found in ids.items()} == dict.fromkeys(keys, 1)
    assert [rows(shop, key) for key in keys] == [1] * len(keys)
    assert set(shop.settled()) <= {"sent", "delivered"}
    everything = [id_ for found in ids.values() for id_ in found]
    assert system.accepted(*everything) == dict.fromkeys(everything, 1)
    seen("200 clients, 4 keys: 4 messages, each sent once")
