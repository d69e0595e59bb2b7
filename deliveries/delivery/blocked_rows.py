"""The statements of ``deliveries.delivery.blocked_heads``: which heads are blocked, and what is done about them."""

from __future__ import annotations

#: Of a service of which everything is paused nothing is left behind: it would go out in the order of its keys afterwards.
RULES = """
SELECT id, order_wait_seconds, order_then,
    EXISTS (SELECT FROM pause WHERE scope = 'all' OR (scope = 'service' AND value = s.id::text))
FROM service s WHERE order_wait_seconds IS NOT NULL AND order_then = ANY(%(known)s) ORDER BY id
"""
STOPS = """
SELECT scope, value FROM pause
UNION ALL
SELECT 'down', id::text FROM account WHERE stopped_at IS NOT NULL
UNION ALL
SELECT 'down', account_id::text FROM breaker
"""

#: Looked at again under the lock of the row: it may have been claimed, sent, resolved or moved to another account meanwhile.
#: The key so that no plan reads the index of all keys where rows are looked up by their ids.
BLOCKED = """
    length(p.ordering_key) > 0 AND p.lease_until IS NULL AND (
        (p.blocked AND p.waiting_for = 'operator')
        OR (NOT p.blocked AND p.due_at > chaski_now() AND p.attempt_count > 0 AND p.waiting_for IN ('retry', 'rate_limit'))
        OR (NOT p.blocked AND p.due_at <= chaski_now() AND p.account_id = ANY(%(down)s::int[])))
"""
#: What an operator has paused keeps its place.
UNPAUSED = """
    p.channel <> ALL(%(channels)s::text[]) AND p.account_id <> ALL(%(paused)s::int[])
    AND (p.batch_id IS NULL OR p.batch_id <> ALL(%(batches)s::uuid[]))
"""
#: A mark that has lost its reason: what is due and not taken waits for us, what is paused for an operator. A head between two
#: attempts is due for a moment, and keeps its mark.
STALE = f"""
    p.blocking_at IS NOT NULL AND p.lease_until IS NULL AND (%(paused_whole)s::boolean OR NOT ({UNPAUSED})
        OR (NOT ({BLOCKED}) AND p.due_at < chaski_now() - make_interval(secs => %(patience)s)))
"""
WAITS = "p.blocked AND p.waiting_for = 'predecessor' AND p.lease_until IS NULL"
OVER = "greatest(head.blocking_at, p.due_at) + make_interval(secs => %(wait)s) <= chaski_now()"

#: A loose scan over the keys of one service, from the key after the one where the last page ended. Gives the last key, how
#: many there were, and of those that are blocked the ones to be marked, and the ones that were waited for long enough.
LOOK = f"""
WITH RECURSIVE head AS (
    (SELECT p.*, 1 AS n FROM pending p WHERE p.ordering_key <> '' AND p.service_id = %(service)s
        AND p.ordering_key > %(after)s
     ORDER BY p.service_id, p.ordering_key, p.position LIMIT 1)
    UNION ALL
    SELECT x.*, head.n + 1 FROM head CROSS JOIN LATERAL (
        SELECT p.* FROM pending p WHERE p.ordering_key <> '' AND p.service_id = %(service)s
            AND p.ordering_key > head.ordering_key
        ORDER BY p.service_id, p.ordering_key, p.position LIMIT 1) x
    WHERE head.n < %(page)s
), blocked AS MATERIALIZED (
    SELECT * FROM head p WHERE {BLOCKED} AND {UNPAUSED} AND NOT %(paused_whole)s::boolean
), found AS MATERIALIZED (
    SELECT head.ordering_key, head.message_id, p.message_id AS next_id, head.blocking_at IS NOT NULL AS overdue
    FROM blocked head CROSS JOIN LATERAL (
        SELECT p.* FROM pending p WHERE p.ordering_key <> '' AND p.service_id = %(service)s
            AND p.ordering_key = head.ordering_key AND p.position > head.position
        ORDER BY p.service_id, p.ordering_key, p.position LIMIT 1) p
    WHERE {WAITS} AND {UNPAUSED} AND p.due_at <= chaski_now() AND p.account_id <> ALL(%(useless)s::int[])
        AND (head.blocking_at IS NULL OR {OVER})
    ORDER BY head.n LIMIT %(rows)s
), last AS (
    SELECT ordering_key, n FROM head ORDER BY n DESC LIMIT 1
)
SELECT last.ordering_key, last.n, found.ordering_key, found.message_id, found.next_id, found.overdue,
    CASE WHEN row_number() OVER () = 1 THEN ARRAY(SELECT p.message_id FROM head p WHERE {STALE} LIMIT %(rows)s) END
FROM last LEFT JOIN found ON true
"""

MARK = f"""
WITH free AS (
    SELECT p.message_id FROM pending p WHERE p.message_id = ANY(%(heads)s::uuid[]) AND p.blocking_at IS NULL AND {BLOCKED}
    FOR UPDATE SKIP LOCKED
)
UPDATE pending p SET blocking_at = chaski_now() WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM free))
RETURNING p.message_id
"""

CLEAR = f"""
WITH free AS (
    SELECT p.message_id FROM pending p WHERE p.message_id = ANY(%(heads)s::uuid[]) AND {STALE} FOR UPDATE SKIP LOCKED
)
UPDATE pending p SET blocking_at = NULL WHERE p.message_id = ANY(ARRAY(SELECT message_id FROM free))
RETURNING p.message_id
"""

_WHY = """
    CASE WHEN p.waiting_for = 'operator' AND p.blocked THEN 'it is in doubt'
        WHEN p.due_at <= chaski_now() THEN 'its account is down'
        WHEN p.waiting_for = 'rate_limit' THEN 'its provider takes no more for now'
        ELSE 'it waits for its next attempt' END AS why
"""

#: Heads and, for each, the next one, that nobody else holds. What is in nobody's hands now is ours.
TAKE = f"""
SELECT head.message_id, head.service_id, head.ordering_key, head.why, p.message_id, m.status
FROM unnest(%(heads)s::uuid[], %(nexts)s::uuid[]) AS pair(head_id, next_id)
CROSS JOIN LATERAL (SELECT p.message_id, p.service_id, p.ordering_key, {_WHY} FROM pending p
    WHERE p.message_id = pair.head_id AND {BLOCKED} LIMIT 1 FOR UPDATE SKIP LOCKED) head
CROSS JOIN LATERAL (SELECT p.message_id FROM pending p
    WHERE p.message_id = pair.next_id AND {WAITS} LIMIT 1 FOR UPDATE SKIP LOCKED) p
CROSS JOIN LATERAL (SELECT status FROM message WHERE id = pair.head_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
WHERE pair.head_id <> ALL(%(apart)s::uuid[])
"""
#: Its place in the queue forgets the key, the message keeps it: a redelivery puts it into its order again.
LEAVE = "UPDATE pending SET ordering_key = '', blocking_at = NULL WHERE message_id = ANY(%(ids)s::uuid[])"

#: What has waited long enough behind each head; the head is held meanwhile, so that it does not go.
REST = f"""
SELECT p.message_id, head.message_id, head.blocking_at, head.why
FROM unnest(%(heads)s::uuid[]) AS blocked(id)
CROSS JOIN LATERAL (SELECT p.*, {_WHY} FROM pending p
    WHERE p.message_id = blocked.id AND {BLOCKED} LIMIT 1 FOR UPDATE SKIP LOCKED) head
CROSS JOIN LATERAL (SELECT p.message_id FROM pending p WHERE p.ordering_key <> '' AND p.service_id = head.service_id
        AND p.ordering_key = head.ordering_key AND p.position > head.position AND {WAITS} AND {UNPAUSED} AND {OVER}
        AND p.message_id <> ALL(%(apart)s::uuid[])
    ORDER BY p.service_id, p.ordering_key, p.position LIMIT %(rows)s FOR UPDATE SKIP LOCKED) p
CROSS JOIN LATERAL (SELECT id FROM message WHERE id = p.message_id LIMIT 1 FOR UPDATE SKIP LOCKED) m
LIMIT %(rows)s
"""
