"""What the rows ask of a system that was hurt: where the messages are, how often each went out, when it was rung for."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.faults.system import WORKERS, FaultSystem
from tests.processes.system import SCALE, Tenant, wait_for

TICK_SECONDS = 1 * SCALE
SWEEP_SECONDS = 5 * SCALE
LEASE_SECONDS = 60 * SCALE
#: What a killed worker may cost at most, and what a busy machine may add to any bound.
RECOVERY_SECONDS = LEASE_SECONDS + 2 * SWEEP_SECONDS
NOISE_SECONDS = 3.0

#: How long a call takes where calls must be under way: half of its deadline at this scale would be a second. It is
#: four passages through the proxy before the vendor.
CALL_SECONDS = 0.4

LANES = ("urgent", "normal", "bulk")
#: What the broker was given is read so much at a time.
COMMANDS = 50
Pair = tuple[str, str]


def row(number: str, fault: str, expected: str) -> pytest.MarkDecorator:
    """The marker of a row, for a test or one parameter of it."""
    return pytest.mark.row(number, fault, expected)


@dataclass(frozen=True, slots=True)
class Fate:
    """Where one message is. ``seconds`` from its first claim, or from ``since``, to its hand-over, by the database's clock."""

    status: str
    accepts: int
    doubts: int
    attempts: int
    seconds: float | None


def fate(system: FaultSystem, message_id: str, since: datetime | None = None) -> Fate:
    """What became of ``message_id``."""
    sql = (
        "SELECT status, in_doubt_count, attempt_count, extract(epoch FROM sent_at -"
        " coalesce(%s, (SELECT min(opened_at) FROM attempt WHERE message_id = m.id), created_at))::float8"
        " FROM message m WHERE id = %s"
    )
    ((status, doubts, attempts, seconds),) = system.query(sql, since, message_id)
    return Fate(status, system.accepted(message_id)[message_id], doubts, attempts, seconds)


def statuses(system: FaultSystem, ids: Iterable[str]) -> Counter[str]:
    """How many of ``ids`` are where. An id that is nowhere counts as ``lost``."""
    wanted = list(ids)
    found = dict(system.query("SELECT id::text, status FROM message WHERE id = ANY(%s::uuid[])", wanted))
    return Counter(found.get(id_, "lost") for id_ in wanted)


def all_sent(system: FaultSystem, ids: Iterable[str], seconds: float = 30) -> None:
    """Wait until each of ``ids`` was handed over."""
    wanted = list(ids)
    try:
        wait_for(lambda: set(statuses(system, wanted)) <= {"sent", "delivered"}, seconds, "the last hand-over")
    except AssertionError as error:
        raise AssertionError(f"{error}: {statuses(system, wanted)}\n{system.log()}") from error


def explained(system: FaultSystem, shop: Tenant, ids: Iterable[str]) -> Counter[str]:
    """Each message reached the provider, and again only after a doubt that was counted; the accepts."""
    wanted = set(ids)
    accepts, doubts = system.accepted(*wanted), shop.doubts()
    assert set(accepts) == wanted, f"{len(wanted - set(accepts))} messages never reached the provider"
    unexplained = {id_: n for id_, n in accepts.items() if n > 1 + doubts[id_]}
    assert not unexplained
    return accepts


def once_and_without_doubt(system: FaultSystem, shop: Tenant, ids: Iterable[str]) -> None:
    """Each message was accepted once and no call is in doubt, for whatever reason."""
    wanted = list(ids)
    assert not (found := in_doubt(system, wanted)), f"calls in doubt: {dict(found)}"
    explained(system, shop, wanted)


def in_doubt(system: FaultSystem, ids: Iterable[str]) -> Counter[str]:
    """How many calls for ``ids`` ended in doubt, by the code that says why. ``worker_vanished``: nobody recorded them."""
    sql = "SELECT code, count(*) FROM attempt WHERE message_id = ANY(%s::uuid[]) AND outcome = 'in_doubt' GROUP BY code"
    return Counter(dict(system.query(sql, list(ids))))


def open_at(system: FaultSystem, name: str) -> int:
    """The attempts of the worker ``name`` that are not recorded."""
    sql = "SELECT count(*) FROM attempt WHERE finished_at IS NULL AND worker LIKE %s"
    return int(system.query(sql, f"{name}@%")[0][0])


def busy_worker(system: FaultSystem, calls: int = 5) -> str:
    """A worker with more than so many calls begun and not recorded, if there is one."""
    sql = (
        "SELECT split_part(worker, '@', 1) FROM attempt WHERE begun_at IS NOT NULL AND finished_at IS NULL"
        " GROUP BY 1 HAVING count(*) > %s ORDER BY count(*) DESC"
    )
    found = system.query(sql, calls)
    return str(found[0][0]) if found else ""


# -- the broker


def bells(system: FaultSystem) -> list[dict[str, Any]]:
    """The arguments of every bell that waits in a queue."""
    with system.queues() as client:
        return [_arguments(entry) for lane in LANES for entry in client.lrange(lane, 0, -1)]


def _arguments(raw: bytes | str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(raw)["body"]))[1]
    return found


def waiting(system: FaultSystem) -> Counter[Pair]:
    """How many bells wait for each channel and lane."""
    return Counter((bell["channel"], bell["lane"]) for bell in bells(system))


def rung_again(system: FaultSystem, pairs: set[Pair]) -> float:
    """Wait until each of ``pairs`` is rung for from now on, or its bell waits in a queue; how long that took.

    The server tells what it is given: workers that are idle take a bell at once, and logs leave out what they told before.
    """
    begun = time.monotonic()
    heard: set[Pair] = set()
    with system.queues() as client, client.monitor() as given:

        def complete() -> bool:
            for _ in range(COMMANDS):  # there may be no end of them
                if not given.connection.can_read(timeout=0.05):
                    break
                heard.update(_rung(given.next_command()["command"]))
            return heard | set(waiting(system)) >= pairs

        wait_for(complete, 20, f"a bell for each of {sorted(pairs)}")
    return time.monotonic() - begun


def looked_at(system: FaultSystem, lane: str, *, by: int, times: int) -> None:
    """Wait until ``by`` clients of the broker have asked ``times`` each how long ``lane`` is: relays do, for what is due."""
    looks: Counter[str] = Counter()
    with system.queues() as client, client.monitor() as given:

        def complete() -> bool:
            for _ in range(COMMANDS):
                if not given.connection.can_read(timeout=0.05):
                    break
                told = given.next_command()
                looks.update([told["client_port"]] if told["command"] == f"LLEN {lane}" else [])
            return sum(count >= times for count in looks.values()) >= by

        wait_for(complete, 30, f"{times} looks of each of {by} relays at {lane}")


def _rung(command: str) -> Iterator[Pair]:
    word, _, rest = command.partition(" ")
    lane, _, raw = rest.partition(" ")
    if word == "LPUSH" and lane in LANES:
        yield _arguments(raw)["channel"], lane


# -- the order


def out_of_order(system: FaultSystem, told: list[str], keys: int) -> str:
    """What reached the provider before its turn, of messages that were accepted key by key in turn; empty: nothing did."""
    reached = list(system.accepted(*told))  # a Counter keeps the order of the file
    for key in range(keys):
        accepted = told[key::keys]
        mine = set(accepted)
        arrived = [message_id for message_id in reached if message_id in mine]
        if arrived != accepted:
            at = next(
                (n for n, pair in enumerate(zip(arrived, accepted, strict=False)) if pair[0] != pair[1]), len(arrived)
            )
            return f"key-{key} was not in order from no. {at}: {arrived[at : at + 3]}, not {accepted[at : at + 1]}"
    return ""


# -- the workers' memory


def resident_mb(system: FaultSystem, which: str = "VmRSS") -> float:
    """The larger resident memory of the two workers, now or (``VmHWM``) at most so far."""
    sizes = [Path(f"/proc/{system.pids()[name]}/status").read_text() for name in WORKERS]
    return max(int(text.partition(f"{which}:")[2].split()[0]) for text in sizes) / 1024


def forget_peaks(system: FaultSystem) -> None:
    """Let the kernel count the workers' most memory from now on: proc_pid_clear_refs(5)."""
    for name in WORKERS:
        Path(f"/proc/{system.pids()[name]}/clear_refs").write_text("5")
