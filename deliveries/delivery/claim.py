"""Claiming: taking due messages under a lease, fairly between services.

Called by the engine. Many workers claim at once: rows that another one holds are skipped, never waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from chaski.vocabulary import Lane
from deliveries.delivery.turns import UNLIMITED, Narrowed, Room, Share, Turn, Turns, open_turns, satisfied, shares
from deliveries.models.messages import LANES
from deliveries.pausing import Pauses
from deliveries.sql import Cursor

ELIGIBLE = """
    p.channel = %(channel)s AND NOT p.blocked AND p.due_at <= chaski_now() AND p.lease_until IS NULL
    AND p.account_id <> ALL(%(accounts)s::int[]) AND p.service_id <> ALL(%(paused)s::int[])
    AND (p.batch_id IS NULL OR p.batch_id <> ALL(%(batches)s::uuid[]))
"""

#: The other lanes help the urgent one where nobody took it up for so long: those who are at work for it are quicker, for in a
#: process that drains a backlog each step of an urgent message would wait for the interpreter.
HELP_SECONDS = 0.2
#: Statements of one claim.
PASSES = 4

BY_ID = f"""
picked AS MATERIALIZED (
    SELECT p.message_id FROM pending p WHERE p.message_id = ANY(%(ids)s::uuid[]) AND (p.suspicion >= 2) = %(solitary)s
        AND {ELIGIBLE}
    ORDER BY p.message_id LIMIT %(n)s FOR UPDATE SKIP LOCKED
)"""

#: Each turn gets its quota of the batch; what some leave over the others may have.
BY_TURN = f"""
turn AS MATERIALIZED (
    SELECT * FROM unnest(%(lanes)s::smallint[], %(services)s::int[], %(through)s::int[], %(quotas)s::int[], %(rests)s::int[],
        %(ages)s::float8[]) WITH ORDINALITY AS u(lane, service_id, account_id, quota, rest, age, place)
), fair AS MATERIALIZED (
    SELECT x.message_id FROM (SELECT * FROM turn ORDER BY place) t CROSS JOIN LATERAL (
        SELECT p.message_id FROM pending p WHERE p.lane = t.lane AND p.service_id = t.service_id
            AND p.account_id = t.account_id AND p.suspicion < 2 AND {ELIGIBLE}
            AND (t.age = 0 OR p.due_at <= chaski_now() - make_interval(secs => t.age))
        ORDER BY p.due_at LIMIT t.quota FOR UPDATE SKIP LOCKED) x
    LIMIT %(n)s
), more AS MATERIALIZED (
    SELECT x.message_id FROM (SELECT * FROM turn WHERE rest > 0 ORDER BY place) t CROSS JOIN LATERAL (
        SELECT p.message_id FROM pending p WHERE p.lane = t.lane AND p.service_id = t.service_id
            AND p.account_id = t.account_id AND p.suspicion < 2 AND {ELIGIBLE}
            AND (t.age = 0 OR p.due_at <= chaski_now() - make_interval(secs => t.age))
            AND p.message_id NOT IN (SELECT message_id FROM fair)
        ORDER BY p.due_at LIMIT t.rest FOR UPDATE SKIP LOCKED) x
    LIMIT greatest(0, %(n)s - (SELECT count(*) FROM fair))
), picked AS MATERIALIZED (SELECT message_id FROM fair UNION ALL SELECT message_id FROM more)"""

#: The few that were in flight when two workers vanished, by an index of their own.
SUSPECTS = f"""
picked AS MATERIALIZED (
    SELECT p.message_id FROM pending p WHERE p.suspicion >= 2 AND p.lane <= %(lane)s AND {ELIGIBLE}
    ORDER BY p.lane, p.due_at LIMIT %(n)s FOR UPDATE SKIP LOCKED
)"""

#: ANY(ARRAY(...)), NOT IN and LIMIT keep every step a look-up per row: where the planner may join, it reads the whole
#: queue or a whole month as soon as its estimate is wrong.
#: Its COMMIT does not wait for the disk: no call begins before BEGIN's, which waits for all that was written before it. A
#: server that dies in between comes back with the message unclaimed, and nobody has sent it.
#: The lease changes only columns that no index mentions, so the row stays in place; the attempt is written ahead.
LEASE = """
, leased AS (
    UPDATE pending p SET lease_until = chaski_now() + make_interval(secs => %(lease)s), lease_token = %(token)s,
        attempt_count = p.attempt_count + 1, solitary = %(solitary)s
    WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM picked)) RETURNING p.*
), opened AS (
    INSERT INTO attempt (message_id, number, token, account_id, worker, task_id, opened_at, outcome, code, detail,
        provider_message_id)
    SELECT message_id, attempt_count, %(token)s, account_id, %(worker)s, %(task_id)s, chaski_now(), '', '', '', ''
    FROM leased
)
SELECT l.message_id, l.attempt_count, l.service_id, l.account_id, l.tries, l.blind_count, l.crash_count, l.expires_at,
       l.solitary, l.ordering_key, chaski_now(), m.recipient, m.content, m.options, m.metadata, m.reference, m.origin,
       m.created_at
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
    CROSS JOIN leased l CROSS JOIN LATERAL (SELECT * FROM message WHERE id = l.message_id LIMIT 1) m
"""

CLAIM_IDS = f"WITH {BY_ID}{LEASE}"
CLAIM_DUE = f"WITH {BY_TURN}{LEASE}"
CLAIM_SUSPECTS = f"WITH {SUSPECTS}{LEASE}"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message under lease: what the send needs and what the decision afterwards needs."""

    id: UUID
    number: int
    token: UUID
    service_id: int
    account_id: int
    tries: int
    blind_count: int
    crash_count: int
    expires_at: datetime
    solitary: bool
    ordering_key: str
    opened_at: datetime
    recipient: str
    content: dict[str, Any]
    options: dict[str, Any]
    metadata: dict[str, Any]
    reference: str
    origin: str
    created_at: datetime
    #: The monotonic moment before which its call must not begin, for its vendor's rates.
    start: float = 0.0


#: What narrows the room of the accounts whose turn it is.
Narrow = Callable[[Cursor, Sequence[Turn], Room], Narrowed]


def as_it_is(_cursor: Cursor, _turns: Sequence[Turn], room: Room) -> Narrowed:
    """Nothing is paced."""
    return Narrowed(room)


@dataclass(frozen=True, slots=True)
class Request:
    """What may be claimed: up to ``n`` of ``channel`` in ``lane`` or a more urgent one, or among ``ids``.

    ``room``: what each account may still take; unless told otherwise, everything.
    """

    channel: str
    lane: Lane
    n: int
    lease_seconds: float
    worker: str
    task_id: str
    pauses: Pauses
    room: Room = UNLIMITED
    ids: tuple[str, ...] = ()
    solitary: bool = False
    narrow: Narrow = as_it_is


@dataclass(frozen=True, slots=True)
class Taken:
    """What one claim took.

    ``all_of_it``: nothing else is due on the channel and lane. ``stopped``: more may be, but places were wanting, or room in
    accounts, of which those that are ``full`` took nothing. ``slots_in``: more is due, and may be sent in so many seconds.
    """

    messages: list[Claimed]
    all_of_it: bool = False
    stopped: bool = False
    full: frozenset[int] = frozenset()
    slots_in: float | None = None


@dataclass(slots=True)
class Claimer:
    """Claims for one worker process."""

    turns: Turns = field(default_factory=lambda: Turns(0.5))
    #: Where the urgent went before the others in the last claim.
    _gave_way: set[tuple[str, Lane]] = field(default_factory=set)

    def claim(self, cursor: Cursor, request: Request) -> Taken:
        """Lease what may be had; its attempts are open when the caller's transaction commits."""
        if request.pauses.hold(request.channel) or request.n <= 0:
            return Taken([], all_of_it=True)
        token = uuid4()
        parameters = self._parameters(request, token)
        if request.ids:
            return Taken(_leased(cursor, CLAIM_IDS, {**parameters, "ids": list(request.ids)}, token))
        if request.solitary:
            lane = LANES.index(request.lane)
            return Taken(_leased(cursor, CLAIM_SUSPECTS, {**parameters, "lane": lane}, token), all_of_it=True)
        known = self.turns.known(request.channel, request.lane)
        taken = self._by_lane(cursor, request, parameters, token, known) if known else None
        if taken is not None and taken.messages:
            return replace(taken, all_of_it=False)  # a service that has just begun to send is not among what is known
        if taken is not None and (taken.full or taken.slots_in is not None):
            return taken  # hundreds of times a second under load; whoever begins to send rings, and what is known ends soon
        fresh = self.turns.read(cursor, request.channel, request.lane)
        if taken is not None and set(fresh) == set(known or ()):
            return taken
        return self._by_lane(cursor, request, parameters, token, fresh)

    def _by_lane(
        self, cursor: Cursor, request: Request, parameters: dict[str, Any], token: UUID, turns: Sequence[Turn]
    ) -> Taken:
        """The urgent by themselves: in a claim of hundreds they would wait for what all the others take.

        After such a claim the others come first, so that many urgent ones take no more than every other claim.
        """
        first, place = LANES.index(Lane.URGENT), (request.channel, request.lane)
        urgent = [turn for turn in turns if turn.lane == first]
        others = [turn for turn in turns if turn.lane != first]
        order = [others, urgent] if place in self._gave_way else [urgent, others]
        self._gave_way.discard(place)
        *ahead, last = [some for some in order if some] or [[]]
        waits: list[float | None] = []
        for some in ahead:
            taken = self._by_turn(cursor, request, parameters, token, some)
            if taken.messages:
                if some is urgent:
                    self._gave_way.add(place)
                return replace(taken, all_of_it=False)
            waits.append(taken.slots_in)
        taken = self._by_turn(cursor, request, parameters, token, last)
        slots_in = min((wait for wait in (*waits, taken.slots_in) if wait is not None), default=None)
        return replace(taken, all_of_it=taken.all_of_it and slots_in is None, slots_in=slots_in)

    @staticmethod
    def _by_turn(
        cursor: Cursor, request: Request, parameters: dict[str, Any], token: UUID, turns: Sequence[Turn]
    ) -> Taken:
        narrowed = request.narrow(cursor, open_turns(turns, request.pauses, request.room.shut), request.room)
        room, left, messages, parts = narrowed.room, request.n, list[Claimed](), list[Share]()
        may = remaining = open_turns(turns, request.pauses, room.shut)
        # Where an account's room is less than its turns, those that had nothing due leave it to the next.
        for _ in range(PASSES):
            shared = shares(remaining, left, room)
            parts += shared
            found = (
                _leased(cursor, CLAIM_DUE, {**parameters, **_arrays(shared, request, room)}, token) if shared else []
            )
            messages += found
            served = {part.turn for part in shared}
            remaining, left = [turn for turn in remaining if turn not in served], left - len(found)
            room = room.after(Counter(message.account_id for message in found))
            if not remaining or not shared or left <= 0:
                break
        # Of those that are full nothing was seen.
        stopped = bool(room.full) or not satisfied(may, parts, len(messages))
        all_of_it = not stopped and narrowed.slots_in is None
        return Taken(messages, all_of_it=all_of_it, stopped=stopped, full=room.full, slots_in=narrowed.slots_in)

    @staticmethod
    def _parameters(request: Request, token: UUID) -> dict[str, Any]:
        return {
            "channel": request.channel,
            "n": request.n,
            "lease": request.lease_seconds,
            "token": token,
            "worker": request.worker,
            "task_id": request.task_id,
            "solitary": request.solitary,
            "accounts": sorted(request.pauses.accounts | request.room.shut | request.pauses.breakers.keys()),
            "paused": sorted(request.pauses.services),
            "batches": sorted(request.pauses.batches),
        }


def _arrays(parts: Sequence[Share], request: Request, room: Room) -> dict[str, Any]:
    return {
        # Of those whose breakers are open, the turns that are left are probes.
        "accounts": sorted(request.pauses.accounts | room.shut),
        "lanes": [part.turn.lane for part in parts],
        "services": [part.turn.service_id for part in parts],
        "through": [part.turn.account_id for part in parts],
        "quotas": [part.quota for part in parts],
        "rests": [part.rest for part in parts],
        "ages": [_age(part.turn, request.lane) for part in parts],
    }


def _age(turn: Turn, lane: Lane) -> float:
    """How long something of ``turn`` must have been due before a claim for ``lane`` takes it."""
    return HELP_SECONDS if turn.lane == LANES.index(Lane.URGENT) and lane is not Lane.URGENT else 0.0


def _leased(cursor: Cursor, sql: str, parameters: dict[str, Any], token: UUID) -> list[Claimed]:
    cursor.execute(sql, parameters)
    return [Claimed(row[0], row[1], token, *row[2:]) for row in cursor.fetchall()]
