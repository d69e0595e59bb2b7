"""Whose turn it is: shares of a claim between services, their accounts and lanes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deliveries.delivery.turns import UNLIMITED, Room, Turn, open_turns, shares
from deliveries.pausing import Pauses

NOTHING = Pauses(False, frozenset(), frozenset(), frozenset(), frozenset())
TURNS = st.lists(
    st.builds(Turn, st.integers(0, 2), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=20, unique=True
)
ROOMS = st.builds(Room, st.integers(1, 300), st.dictionaries(st.integers(1, 4), st.integers(1, 300)))


def test_services_share_evenly_and_their_accounts_within_them() -> None:
    turns = [Turn(1, 1, 10), Turn(1, 1, 11), Turn(1, 2, 20)]
    quotas = {part.turn.account_id: part.quota for part in shares(turns, 100, UNLIMITED)}
    assert quotas == {10: 25, 11: 25, 20: 50}


@given(TURNS, st.integers(1, 250), ROOMS)
def test_the_more_urgent_come_first_and_nobody_goes_without(turns: list[Turn], n: int, room: Room) -> None:
    parts = shares(turns, n, room)
    lanes = [part.turn.lane for part in parts]
    assert lanes == sorted(lanes)
    assert {part.turn for part in parts} == set(turns)
    assert all(part.quota >= 1 and part.rest >= 0 for part in parts)


@given(TURNS, st.integers(1, 250), ROOMS)
def test_an_account_takes_no_more_than_it_may_but_for_one_of_each_service(
    turns: list[Turn], n: int, room: Room
) -> None:
    taken = Counter[int]()
    for part in shares(turns, n, room):
        taken[part.turn.account_id] += part.quota + part.rest
    users = Counter(turn.account_id for turn in turns)
    assert all(calls < room.of(account_id) + users[account_id] for account_id, calls in taken.items())


def test_what_is_paused_or_full_has_no_turn() -> None:
    turns = [Turn(1, 1, 10), Turn(1, 2, 20), Turn(1, 3, 30), Turn(1, 4, 40)]
    pauses = Pauses(False, frozenset(), frozenset({20}), frozenset({1}), frozenset())
    assert open_turns(turns, pauses, frozenset({30})) == [Turn(1, 4, 40)]
    assert open_turns(turns, NOTHING, frozenset()) == turns


def test_a_claim_that_took_less_than_anybody_may_saw_all_that_was_due() -> None:
    assert not Room(usual=100).stops(250, 99)
    assert Room(usual=100).stops(250, 100), "an account may have had more"
    assert Room(usual=100, free={1: 5}).stops(250, 5)
    assert Room(usual=100).stops(50, 50), "places were wanting"
    assert Room(usual=100, full=frozenset({1})).stops(250, 0)
    assert not Room(usual=100, resting=frozenset({1})).stops(250, 0)
