"""Heads: the first message of each ordering key, which may stay blocked by a predecessor that is gone.

That happens where the predecessor was recorded while its successor was being accepted, or where somebody held the successor's
row. Called by the relay with its sweep; any number of relays may look, each on a round of its own.
"""

from __future__ import annotations

from deliveries.sql import Cursor

#: Heads of one statement, which takes 20 to 60 ms, and statements of one look: a round of 300,000 keys takes six looks.
PAGE = 5_000
PAGES = 10

#: A loose scan, from the key after the one where the last page ended. Gives how many were let go, how many heads there
#: were, and the last key.
UNBLOCK = """
WITH RECURSIVE head AS (
    (SELECT service_id, ordering_key, message_id, blocked, 1 AS n FROM pending WHERE ordering_key <> ''
        AND (service_id, ordering_key) > (%(service_id)s::int, %(key)s::text)
     ORDER BY service_id, ordering_key, position LIMIT 1)
    UNION ALL
    SELECT x.*, head.n + 1 FROM head CROSS JOIN LATERAL (
        SELECT service_id, ordering_key, message_id, blocked FROM pending WHERE ordering_key <> ''
            AND (service_id, ordering_key) > (head.service_id, head.ordering_key)
        ORDER BY service_id, ordering_key, position LIMIT 1) x
    WHERE head.n < %(page)s
), free AS (
    SELECT p.message_id FROM pending p WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM head WHERE blocked))
        AND p.blocked AND p.waiting_for = 'predecessor' FOR UPDATE SKIP LOCKED
), let_go AS (
    UPDATE pending p SET blocked = false, waiting_for = ''
    WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM free)) RETURNING p.message_id
)
SELECT (SELECT count(*) FROM let_go), n, service_id, ordering_key FROM head ORDER BY n DESC LIMIT 1
"""

_START = (0, "")


class Heads:
    """One relay's rounds over the heads of all keys, a bounded piece at a time. Not for two threads at once.

    Where it is is kept in memory alone: a relay that starts anew begins a round anew, and what a look could not commit is
    looked at in the next round.
    """

    def __init__(self) -> None:
        self._after = _START

    def unblock(self, cursor: Cursor) -> int:
        """Let every head of the next piece go that waits for a predecessor which is gone; how many there were.

        Goes on through empty pages until it found some, its round ends or the piece is done. Runs in the caller's
        transaction.
        """
        for _ in range(PAGES):
            done = self._page(cursor)
            if done or self._after == _START:
                return done
        return 0

    def _page(self, cursor: Cursor) -> int:
        service_id, key = self._after
        cursor.execute(UNBLOCK, {"service_id": service_id, "key": key, "page": PAGE})
        row = cursor.fetchone()
        done, heads, *last = row or (0, 0)
        self._after = (last[0], last[1]) if heads == PAGE else _START
        return int(done)
