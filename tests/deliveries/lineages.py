"""What the tests of the lineage do to it: processes that start, count and look, and databases that are restored."""

from __future__ import annotations

import redis
from django.db import connection, transaction
from redis.backoff import NoBackoff
from redis.retry import Retry

from deliveries import ledger
from deliveries.lineage import Guard, Standing
from deliveries.models import Lineage
from deliveries.witnesses import Witness


def process(*witnesses: Witness) -> Guard:
    """The guard of a process that has started."""
    guard = Guard(witnesses)
    guard.ask()
    return guard


def unreachable() -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))


def look(guard: Guard) -> Standing:
    with transaction.atomic(), connection.cursor() as cursor:
        return guard.look(cursor)


def advance(guard: Guard, times: int = 1) -> None:
    for _ in range(times):
        with transaction.atomic(), connection.cursor() as cursor:
            tell = guard.advance(cursor)
        tell()


def restore_to(counter: int) -> None:
    Lineage.objects.update(counter=counter)


def come_from_elsewhere() -> None:
    Lineage.objects.update(identity="another cluster/1")


def hold() -> Standing:
    guard = Guard(())
    advance(guard, 2)
    restore_to(0)
    standing = look(guard)
    assert standing.held
    return standing


def balanced() -> bool:
    with connection.cursor() as cursor:
        return ledger.examine(cursor).balanced
