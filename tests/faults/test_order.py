"""Order under random faults: 200 ordering keys with 20 messages each, and what the simulator's own ledger says of them.

What goes wrong, and when, comes from a seed, which is told; ``CHASKI_ORDER_SEED`` gives it again. What it meets depends on the
machine.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chaski.errors import ChaskiError
from chaski.identifiers import uuid7
from config.processes import Process
from tests.faults.evidence import Evidence
from tests.faults.injuries import INJURIES
from tests.faults.system import FaultSystem
from tests.faults.tenants import tenant
from tests.faults.watching import row, statuses
from tests.processes.system import Tenant, wait_for

KEYS, EACH = 200, 20
#: What a message may meet at its vendor in any of its attempts, and how often.
VENDOR_FAULTS = "0.1"
#: Between two rounds of messages, at most: some come in a burst, and wait for each other.
PAUSE_SECONDS = 12.0
#: One of these at a time, now and then two; each once, then all of them again. Not among them is what keeps requests on the wire
#: and lets them go later: then a vendor gets them out of order whatever we do.
FAULTS = (
    "workers killed",
    "workers at crash points",
    "relays killed",
    "broker killed",
    "broker replaced by an empty one",
    "broker emptied",
    "database sessions ended",
    "vendor resets",
    "vendor unreachable",
    "web resets",
)
SETTLED_SECONDS = 600.0


class UnreliableVendor(FaultSystem):
    """The system, whose simulator plays a vendor that fails in a tenth of all attempts: refusals, errors, resets, no answers."""

    def processes(self) -> list[Process]:
        """As ever, but for the simulator's command."""
        return [_failing(each) if each.name == "simulator" else each for each in super().processes()]


def _failing(simulator: Process) -> Process:
    return replace(simulator, command=(*simulator.command, "--fault-rate", VENDOR_FAULTS, "--seed", "order"))


@pytest.fixture
def unreliable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnreliableVendor]:
    """A system of the test's own."""
    home: Path = tmp_path_factory.mktemp("order")
    with UnreliableVendor(home) as system:
        yield system
        system.heal()
        system.must_balance()
        system.books_agree(only_simulator=True)


@dataclass(frozen=True, slots=True)
class Storm:
    """Faults from a seed, one after the other, until the block ends. ``met`` counts them."""

    system: FaultSystem
    chance: random.Random
    met: Counter[str]

    @contextmanager
    def raging(self) -> Iterator[None]:
        """Faults on a thread while the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._rage, args=(over,), name="storm", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(120)
            assert not thread.is_alive(), "the last fault did not end"

    def _rage(self, over: threading.Event) -> None:
        waiting: list[str] = []
        while not over.is_set():
            waiting = waiting or self.chance.sample(FAULTS, len(FAULTS))
            names = [waiting.pop()]
            if waiting and waiting[-1].split()[0] != names[0].split()[0] and self.chance.random() < 0.3:
                names.append(waiting.pop())
            self._strike(names, over)

    def _strike(self, names: Sequence[str], over: threading.Event) -> None:
        seconds, pause = self.chance.uniform(2, 6), self.chance.uniform(0.5, 2)
        with ExitStack() as injured:
            for name in names:
                self.met[name] += 1
                injured.enter_context(INJURIES[name](self.system, self.chance))
            over.wait(seconds)
        over.wait(pause)


def accepted_by_key(shop: Tenant, chance: random.Random) -> list[list[str]]:
    """Send ``EACH`` times one message of each key, as clients do that repeat until they get an answer; the ids by key."""
    rounds = [[str(uuid7()) for _ in range(KEYS)] for _ in range(EACH)]
    for ids in rounds:
        until = time.monotonic() + 120
        while not _is_accepted(shop, ids):
            assert time.monotonic() < until, "a batch was never accepted"
            time.sleep(0.2)
        time.sleep(chance.choice((0.0, *(chance.uniform(0, PAUSE_SECONDS) for _ in range(3)))))
    return [list(ids) for ids in zip(*rounds, strict=True)]


def _is_accepted(shop: Tenant, ids: list[str]) -> bool:
    try:
        shop.send_ids(ids, "webhook", keys=KEYS)
    except ChaskiError:
        return False
    return True


def inversions(accepts: Path, keys: Sequence[Sequence[str]]) -> tuple[list[str], Counter[str]]:
    """Each acceptance that came after one of a later message of its key; and how often each message was accepted.

    By the simulator's own fsynced ledger, in the order of its lines. A repeat counts as any other.
    """
    place = {message_id: (key, number) for key, ids in enumerate(keys) for number, message_id in enumerate(ids)}
    latest: dict[int, int] = {}
    found, times = [], Counter[str]()
    for line in accepts.read_text().splitlines():
        message_id = json.loads(line)["message_id"]
        if message_id not in place:
            continue
        key, number = place[message_id]
        times[message_id] += 1
        if number < latest.get(key, 0):
            found.append(f"key-{key}: no. {number} ({message_id}) after no. {latest[key]}")
        latest[key] = max(number, latest.get(key, 0))
    return found, times


@pytest.mark.faults
@pytest.mark.processes
@pytest.mark.thorough
@row("F1-F6, F11, F24, F28, F30-F31", "200 keys, 20 messages each, random faults from a seed", "no inversion")
def test_keys_keep_their_order_under_random_faults(unreliable: UnreliableVendor, seen: Evidence) -> None:
    seed = int(os.environ.get("CHASKI_ORDER_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"seed {seed}")
    shop = tenant(unreliable, unreliable.webhook())
    storm = Storm(unreliable, random.Random(seed), Counter())
    begun = time.monotonic()
    with storm.raging():
        keys = accepted_by_key(shop, random.Random(seed + 1))
        everything = [message_id for ids in keys for message_id in ids]
        wait_for(lambda: _most_of(unreliable, everything), SETTLED_SECONDS, f"the most of them (seed {seed})")
        wait_for(lambda: set(storm.met) == set(FAULTS), SETTLED_SECONDS, f"each of the faults (seed {seed})")
    unreliable.heal()
    with seen.recovery():
        wait_for(lambda: _none_waits(unreliable, shop), SETTLED_SECONDS, f"the end of the last one (seed {seed})")
    found, times = inversions(unreliable.accepts, keys)
    assert not found, f"seed {seed}: {len(found)} inversions, {found[:10]}"
    ended = statuses(unreliable, everything)
    lost = KEYS * EACH - len(times)
    assert set(ended) <= {"sent", "failed"}, f"seed {seed}: {ended}"
    assert lost <= ended["failed"], f"seed {seed}: {lost} never reached the provider, {ended}"
    poison = unreliable.query("SELECT count(*) FROM message WHERE service_id = %s AND error_class = 'poison'", shop.id)
    assert poison == [(ended["failed"],)], f"seed {seed}: the storm kills workers, and nothing else fails a message"
    repeated = sum(n - 1 for n in times.values())
    met = ", ".join(f"{name} {count}" for name, count in sorted(storm.met.items()))
    took = time.monotonic() - begun
    seen(f"seed {seed}: {len(times)} messages, {repeated} repeats, none out of order, in {took:.0f} s; met {met}")


def _most_of(system: FaultSystem, ids: Sequence[str]) -> bool:
    """Nine of ten: of the last few most wait for their next attempt, and prove nothing under more faults."""
    return statuses(system, ids)["sent"] > 0.9 * len(ids)


def _none_waits(system: FaultSystem, shop: Tenant) -> bool:
    return bool(system.query("SELECT count(*) FROM pending WHERE service_id = %s", shop.id) == [(0,)])


def test_an_inversion_in_the_ledger_is_seen(tmp_path: Path) -> None:
    """The proof above proves nothing if it cannot fail."""
    accepts = tmp_path / "accepts"
    lines = [json.dumps({"message_id": message_id}) for message_id in ("a1", "b1", "a2", "a1", "b2", "other")]
    accepts.write_text("\n".join(lines))
    found, times = inversions(accepts, [["a1", "a2"], ["b1", "b2"]])
    assert found == ["key-0: no. 0 (a1) after no. 1"]
    assert times == {"a1": 2, "b1": 1, "a2": 1, "b2": 1}
