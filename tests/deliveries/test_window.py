"""The windows of a worker process: how many calls an account may have under way, and that nobody takes all the places."""

from __future__ import annotations

import threading
import time

import pytest

from chaski.vocabulary import Lane
from deliveries.delivery.account_window import LEAST, START, AccountWindow
from deliveries.delivery.hands import Hand
from deliveries.delivery.window import Suspects, Window


def rounds(window: AccountWindow, count: int, seconds: float, *, bad: bool = False) -> float:
    """``count`` windows full of calls that each take ``seconds``; the limit after them."""
    for _ in range(count):
        calls = window.free()
        window.begin(calls)
        for _ in range(calls):
            window.answered(seconds, bad=bad)
    return window.limit


def test_an_account_may_have_more_under_way_while_its_provider_gets_no_slower() -> None:
    window = AccountWindow(most=500)
    assert rounds(window, 1, 0.05) > START
    assert rounds(window, 60, 0.05) == 500, "and never more than its provider's bound"


def test_it_does_not_grow_on_what_was_not_tried() -> None:
    window = AccountWindow(most=500)
    for _ in range(1_000):
        window.begin(1)
        window.answered(0.05, bad=False)
    assert window.limit == START


def test_a_provider_that_gets_slower_gets_fewer_calls_at_once() -> None:
    window = AccountWindow(most=500)
    usual = rounds(window, 40, 0.05)
    assert rounds(window, 2, 1.0) < usual / 2


def test_what_varies_far_below_a_tenth_of_a_second_says_nothing_of_the_provider() -> None:
    window = AccountWindow(most=500)
    for number in range(100):
        rounds(window, 1, 0.02 if number % 2 else 0.0001)
    assert window.limit == 500


def test_who_waits_for_an_account_that_has_room_by_now_does_not_wait() -> None:
    window = Window(100, 4)
    window.begin([1] * 4 + [2] * 4)
    for _ in range(4):
        window.leave(2)
    begun = time.monotonic()
    window.wait_for_room([1, 2], 60, lambda: False)
    assert time.monotonic() - begun < 10


def test_what_is_slow_all_the_time_is_usual_and_no_reason_to_send_less() -> None:
    window = AccountWindow(most=500)
    assert rounds(window, 20, 5.0) > START


@pytest.mark.parametrize("most", [500, 50, 2])
def test_a_provider_that_is_away_keeps_a_few_calls_and_comes_back_quickly(most: int) -> None:
    window = AccountWindow(most=most)
    assert rounds(window, 20, 15.0, bad=True) == min(LEAST, most)
    assert rounds(window, 60, 0.05) == most


def test_one_bad_answer_among_many_is_an_accident() -> None:
    window = AccountWindow(most=500)
    for number in range(50):
        window.begin(1)
        window.answered(0.05, bad=number % 20 == 0)
    assert window.limit >= START


def test_an_account_that_is_full_waits_until_half_of_it_is_free_so_that_claims_stay_large() -> None:
    window = Window(1_000, 500)
    window.begin([7] * START)
    assert window.room(250, Lane.NORMAL, ()).full == {7}
    for _ in range(START // 2 - 1):
        window.leave(7)
    assert window.room(250, Lane.NORMAL, ()).full == {7}
    window.leave(7)
    assert window.room(250, Lane.NORMAL, ()).of(7) == START // 2


def test_the_most_urgent_find_room_in_an_account_and_a_window_that_others_have_filled() -> None:
    window = Window(100, 500)
    assert window.take(250, Lane.BULK) == 90
    assert window.take(250, Lane.NORMAL) == 0
    assert window.take(250, Lane.URGENT) == 10
    window = Window(1_000, 500)
    window.begin([7] * START)
    assert window.room(250, Lane.BULK, ()).full == {7}
    assert window.room(250, Lane.URGENT, ()).of(7) == START // 4


def test_though_several_accounts_hang_the_next_one_finds_places() -> None:
    window = Window(1_000, 500)
    for account_id in range(9):
        granted = window.take(1_000, Lane.BULK)
        some = min(granted, window.room(granted, Lane.BULK, ()).of(account_id))
        window.give(granted - some)
        window.begin([account_id] * some)
        assert some >= 10, f"account {account_id} found no place"


def test_what_rests_takes_nothing() -> None:
    room = Window(100, 50).room(10, Lane.URGENT, [3])
    assert room.shut == {3}
    assert not room.full, "nobody waits for it"


@pytest.mark.parametrize("patience", [0.0, 0.02])
def test_who_wants_places_waits_for_a_number_that_is_worth_a_claim_and_no_longer_than_it_may(patience: float) -> None:
    window = Window(100, 50)
    window.take(100)
    window.give(3)
    assert window.take(50, patience=patience) == 3


def test_who_waits_is_woken_as_soon_as_it_is_worth_it() -> None:
    window = Window(100, 50)
    window.take(100)
    granted: list[int] = []
    waiting = threading.Thread(target=lambda: granted.append(window.take(50, patience=60)))
    waiting.start()
    for _ in range(25):
        window.give()
    waiting.join(5)
    assert granted == [25]


def test_who_waits_for_room_is_woken_when_an_account_has_some() -> None:
    window = Window(100, 4)
    window.begin([1] * 4 + [2] * 4)
    waiting = threading.Thread(target=lambda: window.wait_for_room([1, 2], 60, lambda: False))
    waiting.start()
    for _ in range(2):
        window.answered(2, 0.05, bad=False)
    waiting.join(5)
    assert not waiting.is_alive()


def test_who_waits_for_room_hears_a_bell() -> None:
    window, rung = Window(100, 4), threading.Event()
    window.begin([1] * 4)
    waiting = threading.Thread(target=lambda: window.wait_for_room([1], 60, rung.is_set))
    waiting.start()
    rung.set()
    window.wake()
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_ring_is_for_the_hand_that_waits_though_others_look_first() -> None:
    window, hand = Window(100, 4), Hand("webhook", Lane.NORMAL, "a task")
    window.begin([1] * 4)
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(hand.wait_for_room(window, [1], 60)))
    waiting.start()
    hand.ring()
    window.give(0)  # looks at what the waiting one waits for
    window.wake()
    waiting.join(5)
    assert heard == [True]
    assert not hand.rung


def test_where_many_hosts_answer_one_of_them_is_no_measure_of_the_others() -> None:
    window = Window(1_000, 200, follows=False)
    for _ in range(50):
        window.begin([1])
        window.answered(1, 15.0, bad=True)
    assert window.room(250, Lane.NORMAL, ()).of(1) == 200


def test_a_look_for_suspects_in_one_lane_puts_off_none_in_another() -> None:
    suspects = Suspects()
    assert suspects.take("sms", Lane.URGENT)
    suspects.none("sms", Lane.URGENT)
    assert not suspects.take("sms", Lane.URGENT)
    assert suspects.take("sms", Lane.BULK)
