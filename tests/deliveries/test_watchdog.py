"""When a worker ends itself: only after a whole patience of looks that all show a bell lying there for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deliveries.conf import Timings
from deliveries.watchdog import Judge, Look

EVERY = 3.0
BELL = {"normal": b"bell 1"}
LYING = Look(at=0.0, oldest=BELL, slot_free=True, connected=True, delivered_at=-100.0)


def judged(*looks: Look, every: float = EVERY) -> list[str]:
    """What is said at each of ``looks``, one every three seconds."""
    judge = Judge(Timings())
    return [judge.judge(replace(look, at=number * every)) for number, look in enumerate(looks)]


def test_a_bell_that_lies_before_a_free_slot_for_thirty_seconds_means_deaf() -> None:
    assert judged(*[LYING] * 11) == [""] * 10 + ["deaf"]


@pytest.mark.parametrize(
    "unlike",
    [
        replace(LYING, slot_free=False),
        replace(LYING, oldest={}),
        replace(LYING, oldest=None),
        replace(LYING, oldest={"normal": b"bell 2"}),
        replace(LYING, oldest={"urgent": b"bell 1"}),
    ],
    ids=["its slots were taken", "the queue was empty", "the broker was silent", "another bell", "another queue"],
)
def test_one_look_that_tells_otherwise_begins_the_patience_again(unlike: Look) -> None:
    said = judged(*[LYING] * 9, unlike, *[LYING] * 12)
    assert said.index("deaf") == 20


def test_a_delivery_begins_the_patience_again() -> None:
    said = judged(*[LYING] * 9, *[replace(LYING, delivered_at=8 * EVERY + 1)] * 12)
    assert said.index("deaf") == 19


def test_a_queue_whose_bells_others_take_means_nothing_however_long_it_is() -> None:
    looks = [replace(LYING, oldest={"normal": f"bell {number}".encode()}) for number in range(100)]
    assert set(judged(*looks)) == {""}


def test_a_worker_that_reconnects_is_given_longer() -> None:
    said = judged(*[replace(LYING, connected=False)] * 50)
    assert said.index("deaf") == 40


def test_what_was_seen_before_the_process_stood_still_does_not_count() -> None:
    judge = Judge(Timings())
    for number in range(10):
        assert not judge.judge(replace(LYING, at=number * EVERY))
    frozen = 3600.0
    assert not judge.judge(replace(LYING, at=frozen, looped=False))
    assert not judge.judge(replace(LYING, at=frozen + EVERY))


def test_a_recorder_that_ended_is_seen_at_the_next_look() -> None:
    idle = replace(LYING, oldest={})
    assert judged(idle, replace(idle, recording=False)) == ["", "recorder_ended"]


def test_a_loop_that_runs_nothing_for_thirty_seconds_is_stuck_and_a_slow_one_is_not() -> None:
    idle = replace(LYING, oldest={})
    silent = replace(idle, looped=False)
    assert judged(idle, *[silent] * 10) == [""] * 10 + ["loop_stuck"]
    assert set(judged(idle, *[*[silent] * 9, idle] * 4)) == {""}
