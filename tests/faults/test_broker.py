"""F11-F18: the broker killed, emptied, replaced, full, hung, cut off. It carries bells only, so this costs delay at most."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from config.embedded import EmbeddedValkey
from config.ports import any_free
from tests.faults.evidence import Evidence
from tests.faults.load import Load, without_repeats
from tests.faults.logs import log_volume
from tests.faults.system import FaultSystem
from tests.faults.watching import (
    TICK_SECONDS,
    all_sent,
    explained,
    once_and_without_doubt,
    row,
    rung_again,
    waiting,
)
from tests.processes.system import Tenant, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.processes]

Outage = Callable[[FaultSystem], AbstractContextManager[None]]
#: Two ticks, and what a busy machine adds: less than the 1.5 s after which the slot of a bell ends by itself.
RING_SECONDS = 2 * TICK_SECONDS + 1.0
#: A request that waited for the broker would take a second more at least: its client gives up no sooner.
ANSWER_SECONDS = 1.0
PAIRS = {("webhook", "normal"), ("webhook", "bulk"), ("sms", "urgent")}


def due_everywhere(shop: Tenant) -> list[str]:
    """Messages on two channels and all three lanes."""
    normal, bulk = shop.send_many(10, "webhook"), shop.send_many(10, "webhook", priority="bulk")
    return [*normal, *bulk, *shop.send_many(10, "sms", priority="urgent")]


@contextmanager
def down(system: FaultSystem) -> Iterator[None]:
    """Killed, and started again on its append-only file."""
    system.valkey.kill()
    yield
    system.valkey.start()


@contextmanager
def wiped(system: FaultSystem) -> Iterator[None]:
    """Killed, and started again with nothing."""
    system.valkey.kill()
    yield
    system.valkey.drop()
    system.valkey.start()


@contextmanager
def flushed(system: FaultSystem) -> Iterator[None]:
    """Emptied while it runs."""
    yield
    with system.queues() as client:
        client.flushall()


@contextmanager
def replaced(system: FaultSystem) -> Iterator[None]:
    """Killed, and its address leads to another server, which has nothing (simulated: the proxy is turned)."""
    system.valkey.kill()
    yield
    spare = EmbeddedValkey(system.home / "spare", log=system.home / "log" / "spare.log", port=any_free())
    system.spares.enter_context(spare)
    assert spare.port is not None
    system.broker_proxy.lead_to(("127.0.0.1", spare.port))


@contextmanager
def full(system: FaultSystem) -> Iterator[None]:
    """No room for anything more."""
    with system.queues() as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


@contextmanager
def hung(system: FaultSystem) -> Iterator[None]:
    """Takes connections and never answers."""
    with system.frozen(system.valkey.process.pid):
        yield


@contextmanager
def black_holed(system: FaultSystem) -> Iterator[None]:
    """The network swallows what is said to it."""
    system.broker_proxy.hold()
    yield
    system.broker_proxy.heal()


@contextmanager
def reset_fifty_times(system: FaultSystem) -> Iterator[None]:
    """Every connection is reset, fifty times in less time than after which a worker takes itself for deaf."""
    yield
    for _ in range(50):
        system.broker_proxy.reset()
        time.sleep(0.04)


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(
            down, marks=row("F11", "kill -9 Valkey, with its AOF", "all rung again within two ticks; no restart")
        ),
        pytest.param(
            wiped,
            marks=[
                row("F12", "kill -9 Valkey, started empty", "all rung again within two ticks; no restart"),
                pytest.mark.thorough,
            ],
        ),
        pytest.param(flushed, marks=row("F13", "FLUSHALL", "all rung again within two ticks; no restart")),
        pytest.param(
            replaced,
            marks=row(
                "F14",
                "switched to an empty server (simulated by the proxy)",
                "all rung again within two ticks; no restart",
            ),
        ),
    ],
)
def test_everything_due_is_rung_again_after_the_broker_was_lost(
    system: FaultSystem, shop: Tenant, seen: Evidence, outage: Outage
) -> None:
    pids = system.pids()
    with system.paused(shop.id):
        ids = due_everywhere(shop)
        with outage(system):
            ids += shop.send_many(5, "webhook")
        assert seen.took(rung_again(system, PAIRS)) < RING_SECONDS
    all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    assert system.pids() == pids, f"nobody had to be restarted\n{system.log()}"
    seen(f"{len(ids)} messages on {len(PAIRS)} queues rung for again, all sent once, no process restarted")


@row("F8, F13", "the bells lie with workers that hang, the queues are lost", "rung again within two ticks, few bells")
def test_a_bell_that_lies_with_a_worker_that_hangs_is_not_waited_for(
    system: FaultSystem, shop: Tenant, seen: Evidence
) -> None:
    workers = [pid for name, pid in system.pids().items() if name.startswith("worker")]
    with system.frozen(*workers):
        ids = due_everywhere(shop)
        rung_again(system, PAIRS)
        wait_for(lambda: slots_stand(system), 10, "a slot for each bell")
        with seen.recovery():
            with system.queues() as queues:
                queues.flushdb()  # the slots are in another database
            wait_for(lambda: set(waiting(system)) >= PAIRS, 10, "bells for everything due")
        assert seen.recovery_seconds is not None
        assert seen.recovery_seconds < RING_SECONDS
        found = waiting(system)
        assert max(found.values()) <= 3, found
    all_sent(system, ids)
    once_and_without_doubt(system, shop, ids)
    seen(f"rung for again while their slots stood, {found.total()} bells waited for {len(PAIRS)} queues")


def slots_stand(system: FaultSystem) -> bool:
    """Is the slot of each pair taken? If so, none ends by itself from now on, so that nothing else lets a bell ring."""
    with system.queues() as queues:
        queues.select(1)
        return all(queues.pexpire(f"chaski:bell:{channel}:{lane}", 60_000) for channel, lane in PAIRS)


@pytest.mark.parametrize(
    ("outage", "seconds"),
    [
        pytest.param(
            hung,
            60,
            marks=[
                row("F16", "Valkey hung for 60 s", "202 throughout; goes on by itself"),
                pytest.mark.thorough,
            ],
        ),
        pytest.param(
            black_holed, 3, marks=row("F17", "Valkey black-holed for 3 s", "202 throughout; goes on by itself")
        ),
        pytest.param(
            black_holed,
            30,
            marks=[
                row("F17", "Valkey black-holed for 30 s", "202 throughout; goes on by itself"),
                pytest.mark.thorough,
            ],
        ),
        pytest.param(
            reset_fifty_times, 0, marks=row("F18", "fifty disconnects in 2 s", "202 throughout; goes on by itself")
        ),
    ],
)
def test_acceptance_goes_on_and_consumption_resumes_by_itself(
    system: FaultSystem, shop: Tenant, seen: Evidence, outage: Outage, seconds: float
) -> None:
    pids = system.pids()
    with log_volume(system):
        with Load(without_repeats(shop), channel="webhook", rows=5) as load:
            load.more(10)
            until = time.monotonic() + seconds
            with outage(system):
                load.more(20)
                time.sleep(max(0.0, until - time.monotonic()))
            told = list(load.told)
            with seen.recovery():
                all_sent(system, told)
        all_sent(system, load.told)
    once_and_without_doubt(system, shop, load.told)
    answered(load)
    assert system.pids() == pids, f"nobody had to be restarted\n{system.log()}"
    seen(
        f"{len(load.told)} accepted, the slowest chunk in {max(load.seconds):.2f} s; all sent once, no process restarted"
    )


@pytest.mark.thorough
@row("F15", "Valkey full while workers pop", "202 throughout; goes on by itself; no repeat without a doubt")
def test_a_full_broker_costs_delay_only(system: FaultSystem, shop: Tenant, seen: Evidence) -> None:
    pids = system.pids()
    with log_volume(system), Load(without_repeats(shop), channel="webhook", rows=5) as load:
        load.more(10)
        before = refused_for_want_of_room(system)
        with full(system):
            load.more(100)
            wait_for(lambda: refused_for_want_of_room(system) > before, 10, "a command that Valkey has no room for")
        told = list(load.told)
        with seen.recovery():
            all_sent(system, told, 60)
    all_sent(system, load.told)
    explained(system, shop, load.told)
    answered(load)
    ended = sorted(name for name, pid in system.pids().items() if pids[name] != pid)
    doubts = sum(shop.doubts()[id_] for id_ in load.told)
    seen(
        f"{len(load.told)} accepted, the slowest chunk in {max(load.seconds):.2f} s, and sent, {doubts} doubts;"
        f" ended and started by the supervisor: {ended or 'none'}"
    )


def refused_for_want_of_room(system: FaultSystem) -> int:
    """How many commands Valkey has answered with OOM so far."""
    with system.queues() as client:
        return int(client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"])


def answered(load: Load) -> None:
    """Every request was answered with 202, and none waited for the broker."""
    assert not load.errors, "every request was answered with 202"
    assert max(load.seconds) < ANSWER_SECONDS


@pytest.mark.parametrize(
    ("blocks", "share"),
    [
        pytest.param(4, 0.9, marks=row("F16", "Valkey hung: API latency", "at most 50 ms over normal, 9 of 10")),
        pytest.param(
            15,
            0.99,
            marks=[row("F16", "Valkey hung: API latency", "at most 50 ms over normal at p99"), pytest.mark.thorough],
        ),
    ],
)
def test_acceptance_is_no_slower_while_the_broker_hangs(
    system: FaultSystem, shop: Tenant, seen: Evidence, blocks: int, share: float
) -> None:
    """Normal and hung blocks take turns, so that what else the machine does meets both."""
    usual: list[float] = []
    without: list[float] = []
    for _ in range(blocks):
        usual += seconds_of(shop, 15)
        with hung(system):
            without += seconds_of(shop, 15)
    normal, slow = quantile(usual, share), quantile(without, share)
    assert slow < normal + 0.05
    assert statistics.median(without) < statistics.median(usual) + 0.05
    seen(f"{share:.0%} within {slow * 1000:.0f} ms, normally {normal * 1000:.0f} ms, of {len(usual)} each")


def seconds_of(shop: Tenant, count: int) -> list[float]:
    """How long each of ``count`` sends took."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        shop.send("webhook", "https://shop.example/hooks/1")
        took.append(time.perf_counter() - begun)
    return took


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie."""
    return statistics.quantiles(values, n=100)[round(share * 100) - 1]
