"""Whose turn it is: shares of a claim between services, their accounts and lanes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deliveries.delivery.turns import UNLIMITED, Room, Turn, open_turns, satisfied, shares
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
def test_the_more_urgent_come_first_and_nobody_with_room_goes_without(turns: list[Turn], n: int, room: Room) -> None:
    parts = shares(turns, n, room)
    lanes = [part.turn.lane for part in parts]
    assert lanes == sorted(lanes)
    assert all(part.quota >= 1 and part.rest >= 0 for part in parts)
    assert {part.turn.account_id for part in parts} == {turn.account_id for turn in turns}


@given(TURNS, st.integers(1, 250), ROOMS)
def test_an_account_takes_no_more_than_it_may_however_many_services_share_it(
    turns: list[Turn], n: int, room: Room
) -> None:
    taken = Counter[int]()
    for part in shares(turns, n, room):
        taken[part.turn.account_id] += part.quota + part.rest
    assert all(calls <= room.of(account_id) for account_id, calls in taken.items())


@given(TURNS, st.integers(1, 250), ROOMS, st.data())
def test_a_claim_is_satisfied_only_where_nothing_is_left_behind(
    turns: list[Turn], n: int, room: Room, data: st.DataObject
) -> None:
    due = {turn: data.draw(st.integers(0, 20)) for turn in turns}
    before, left, taken = sum(due.values()), n, 0
    parts = shares(turns, n, room)
    for amount in ("quota", "rest"):
        for part in parts:
            got = min(getattr(part, amount), due[part.turn], left)
            due[part.turn] -= got
            left -= got
            taken += got
    if satisfied(turns, parts, taken):
        assert sum(due.values()) == 0, f"{taken} of {before} taken"


def test_what_is_paused_or_full_has_no_turn() -> None:
    turns = [Turn(1, 1, 10), Turn(1, 2, 20), Turn(1, 3, 30), Turn(1, 4, 40)]
    pauses = Pauses(False, frozenset(), frozenset({20}), frozenset({1}), frozenset())
    assert open_turns(turns, pauses, frozenset({30})) == [Turn(1, 4, 40)]
    assert open_turns(turns, NOTHING, frozenset()) == turns
