"""F1-F10: worker processes that are killed, frozen or restarted at any point of a message's path."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.evidence import Evidence
from tests.faults.system import FaultSystem
from tests.processes.system import SCALE, Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

LEASE_SECONDS = 60 * SCALE
SWEEP_SECONDS = 5 * SCALE
#: What a killed worker may cost at most, and what a busy machine may add to it.
RECOVERY_SECONDS = LEASE_SECONDS + 2 * SWEEP_SECONDS
NOISE_SECONDS = 4.0


def explained(system: FaultSystem, shop: Tenant, ids: list[str]) -> Counter[str]:
    """Each message reached the provider, and again only after a doubt that was counted; the accepts."""
    accepts, doubts = system.accepted(*ids), shop.doubts()
    assert set(accepts) == set(ids), f"{len(set(ids) - set(accepts))} messages never reached the provider"
    unexplained = {id_: n for id_, n in accepts.items() if n > 1 + doubts[id_]}
    assert not unexplained
    return accepts


def sent(statuses: object) -> bool:
    """Did everything go out?"""
    return set(statuses) <= {"sent", "delivered"}  # type: ignore[call-overload]


def row(number: str, fault: str, expected: str) -> pytest.MarkDecorator:
    """The marker of a row for one parameter."""
    return pytest.mark.row(number, fault, expected)


@pytest.mark.parametrize(
    ("point", "accepts", "doubts"),
    [
        pytest.param("after_claim", 1, 0, marks=row("F2", "kill -9 after the claim", "sent; 1 accept, no doubt")),
        pytest.param("after_begin", 1, 1, marks=row("F3", "kill -9 after the begin", "sent; 1 accept, 1 doubt")),
        pytest.param("in_send", 1, 1, marks=row("F3", "kill -9 in the call, not accepted", "sent; 1 accept, 1 doubt")),
        pytest.param(
            "after_answer", 2, 1, marks=row("F4", "kill -9 in the call, accepted", "sent; 2 accepts, 1 doubt")
        ),
        pytest.param("before_record", 2, 1, marks=row("F5", "kill -9 before recording", "sent; 2 accepts, 1 doubt")),
        pytest.param("after_record", 1, 0, marks=row("F6", "kill -9 after recording", "sent; 1 accept, no doubt")),
    ],
)
def test_a_worker_killed_at_a_point_of_the_path(
    system: FaultSystem, seen: Evidence, point: str, accepts: int, doubts: int
) -> None:
    shop = system.new_service(
        system.webhook()
    )  # it sends no receipts, which would settle a doubt before the lease ends
    system.crash_at(point)
    with seen.recovery():
        message = shop.send("webhook", "https://shop.example/hooks/1")
        (pid,) = system.crashed(point)
        statuses = shop.settled()
    assert sent(statuses)
    assert system.accepted(str(message.id)) == {str(message.id): accepts}
    assert shop.doubts() == {str(message.id): doubts}
    assert seen.recovery_seconds is not None
    assert seen.recovery_seconds < RECOVERY_SECONDS + NOISE_SECONDS
    seen(f"sent; accepts {accepts}, doubts {doubts}")
    wait_for(lambda: pid not in system.pids().values(), 20, "another process in its place")
