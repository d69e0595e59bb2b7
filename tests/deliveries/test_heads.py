"""Heads that nobody let go are found, however many keys there are, a bounded piece at a time."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction

from deliveries.delivery import heads
from deliveries.delivery.heads import Heads
from deliveries.models import Pending
from tests.deliveries import steps
from tests.factories import Caller, make_account, make_caller

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two heads at a time, two times in one look."""
    monkeypatch.setattr(heads, "PAGE", 2)
    monkeypatch.setattr(heads, "PAGES", 2)


@pytest.fixture
def waiting(shop: Caller) -> list[Any]:
    """The first messages of eleven keys, of two services, in the order of their keys."""
    make_account("sms")
    other = make_caller("other")
    keys = [(shop, n) for n in range(6)] + [(other, n) for n in range(5)]
    return [steps.accept(caller.service, 2, ordering_key=f"k{n}")[0] for caller, n in keys]


def forgotten(*ids: Any) -> None:
    """These should have been let go."""
    Pending.objects.filter(pk__in=ids).update(blocked=True, waiting_for="predecessor")


def blocked() -> set[Any]:
    """The heads that are."""
    return set(Pending.objects.filter(blocked=True, waiting_for="predecessor").values_list("pk", flat=True))


def look(round_: Heads) -> int:
    """One, in a transaction of its own, as the relay does."""
    with transaction.atomic(), connection.cursor() as cursor:
        return round_.unblock(cursor)


def test_each_look_goes_on_where_the_last_one_stopped_and_the_round_begins_anew_at_its_end(waiting: list[Any]) -> None:
    forgotten(waiting[1], waiting[10])
    round_ = Heads()
    assert look(round_) == 1
    assert waiting[1] not in blocked()
    forgotten(waiting[0])
    assert [look(round_) for _ in range(3)] == [0, 0, 1], "four keys of no interest at most in one look"
    assert waiting[10] not in blocked()
    assert waiting[0] in blocked()
    assert look(round_) == 1
    assert waiting[0] not in blocked()


def test_a_look_that_found_some_is_repeated_at_once_by_the_relay_and_ends(waiting: list[Any]) -> None:
    forgotten(*waiting)
    round_ = Heads()
    found = iter(lambda: look(round_), 0)
    assert sum(found) == len(waiting)
    assert not blocked() & set(waiting)


def test_successors_stay_blocked(waiting: list[Any]) -> None:
    before = blocked()
    assert len(before) == len(waiting)
    for _ in range(5):
        assert look(Heads()) == 0
    assert blocked() == before


def test_there_may_be_no_keys_at_all(shop: Caller) -> None:
    make_account("sms")
    steps.accept(shop.service)
    assert look(Heads()) == 0
