"""Invariants 1, 2, 8 and 9: every accepted message is there, once, in one place, with its own children and no others'."""

from __future__ import annotations

from deliveries.ledger.checks import Check

#: (what, its table, how it is found by the message): a child and the service that it names.
_CHILDREN = {
    "event": "event c ON c.message_id = m.id AND c.message_id >= %(floor)s",
    "queue row": "pending c ON c.message_id = m.id",
    "acceptance": "acceptance c ON c.message_id = m.id AND c.message_id >= %(floor)s",
    "key": "idempotency c ON c.message_id = m.id AND c.created_at >= %(since)s",
    "untold event": "untold c ON c.message_id = m.id",
    "told event": "told c ON c.message_id = m.id AND c.message_id >= %(floor)s",
    "batch": "batch c ON c.id = m.batch_id",
}
_OF_ANOTHER = " UNION ALL ".join(
    f"SELECT m.id, '{what} of service ' || c.service_id FROM message m JOIN {joined}"
    " WHERE m.id >= %(floor)s AND c.service_id <> m.service_id"
    for what, joined in _CHILDREN.items()
)
_OF_NOBODY = " UNION ALL ".join(
    f"SELECT c.message_id, '{table}' FROM {table} c LEFT JOIN message m ON m.id = c.message_id AND m.id >= %(floor)s"
    " WHERE c.message_id >= %(floor)s AND m.id IS NULL"
    for table in ("event", "attempt", "untold", "told")
)

CHECKS = (
    Check(
        1,
        "accepted, and no message",
        "SELECT a.message_id, a.origin FROM acceptance a"
        " LEFT JOIN message m ON m.id = a.message_id AND m.id >= %(floor)s"
        " WHERE a.message_id >= %(floor)s AND m.id IS NULL",
    ),
    Check(
        1,
        "its counts by service, origin and hour differ",
        "SELECT service_id, origin || ' ' || hour || ': ' || coalesce(a.n, 0) || ' accepted, ' || coalesce(m.n, 0) || ' there'"
        " FROM (SELECT service_id, origin, date_trunc('hour', accepted_at) AS hour, count(*) AS n FROM acceptance"
        "  WHERE message_id >= %(floor)s GROUP BY 1, 2, 3) a FULL JOIN"
        " (SELECT service_id, origin, date_trunc('hour', created_at) AS hour, count(*) AS n FROM message"
        "  WHERE id >= %(floor)s GROUP BY 1, 2, 3) m USING (service_id, origin, hour) WHERE a.n IS DISTINCT FROM m.n",
    ),
    Check(
        1,
        "waits, and is in no queue",
        "SELECT m.id, m.status FROM message m LEFT JOIN pending p ON p.message_id = m.id AND p.message_id >= %(floor)s"
        " WHERE m.id >= %(floor)s AND m.status IN ('queued', 'in_doubt') AND p.message_id IS NULL",
    ),
    Check(
        1,
        "is in the queue, and done",
        "SELECT p.message_id, coalesce(m.status, 'no message') FROM pending p"
        " LEFT JOIN message m ON m.id = p.message_id AND m.id >= %(floor)s"
        " WHERE p.message_id >= %(floor)s AND (m.id IS NULL OR m.status NOT IN ('queued', 'in_doubt', 'sending'))"
        # a receipt that is quicker than its send leaves the queue row to the worker that holds it
        " AND p.lease_until IS NULL",
    ),
    Check(
        1,
        "is in doubt and would be sent, or is not and is held",
        "SELECT p.message_id, m.status || CASE WHEN p.blocked THEN ', held for ' || p.waiting_for ELSE ', not held' END"
        " FROM pending p JOIN message m ON m.id = p.message_id AND m.id >= %(floor)s"
        " WHERE p.message_id >= %(floor)s AND p.lease_until IS NULL"
        " AND ((m.status = 'in_doubt' AND NOT p.blocked)"
        "  OR (m.status = 'queued' AND p.blocked AND p.waiting_for <> 'predecessor'))",
    ),
    Check(
        2,
        "never accepted",
        "SELECT m.id, m.origin FROM message m"
        " LEFT JOIN acceptance a ON a.message_id = m.id AND a.message_id >= %(floor)s"
        " WHERE m.id >= %(floor)s AND a.message_id IS NULL",
    ),
    Check(
        2,
        "told to a client by its key, and no message",
        "SELECT i.message_id, i.key FROM idempotency i LEFT JOIN message m ON m.id = i.message_id AND m.id >= %(floor)s"
        " WHERE i.created_at >= %(since)s AND i.message_id >= %(floor)s AND m.id IS NULL",
    ),
    Check(
        8,
        "lost its key within 72 hours, or its key gives another message",
        "SELECT m.id, m.idempotency_key FROM message m WHERE m.id >= %(floor)s AND m.idempotency_key <> ''"
        " AND m.created_at > chaski_now() - interval '72 hours' AND NOT EXISTS (SELECT 1 FROM idempotency i"
        "  WHERE i.service_id = m.service_id AND i.key = m.idempotency_key AND i.message_id = m.id)",
    ),
    Check(
        8,
        "has the key of another message of its service, accepted less than 72 hours before",
        "SELECT id, idempotency_key FROM (SELECT id, idempotency_key, created_at, lag(created_at) OVER"
        "  (PARTITION BY service_id, idempotency_key ORDER BY created_at) AS before"
        "  FROM message WHERE id >= %(floor)s AND idempotency_key <> '') m WHERE created_at < before + interval '72 hours'",
    ),
    Check(
        8,
        "has a receipt of one provider event twice",
        "SELECT (array_agg(message_id))[1], count(*) || ' times ' || event_id FROM receipt WHERE message_id >= %(floor)s"
        " GROUP BY account_id, event_id HAVING count(*) > 1",
    ),
    Check(
        8,
        "has no unique index any more",
        "SELECT t.name, t.columns::text FROM (VALUES ('idempotency', ARRAY['service_id', 'key']::name[]),"
        "  ('receipt', ARRAY['account_id', 'event_id']::name[])) AS t(name, columns) WHERE NOT EXISTS ("
        "  SELECT 1 FROM pg_index i WHERE i.indrelid = t.name::regclass AND i.indisunique AND i.indisvalid"
        "  AND i.indpred IS NULL AND (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute a"
        "   WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey))"
        "   = (SELECT array_agg(c ORDER BY c) FROM unnest(t.columns) c))",
    ),
    Check(9, "has children of another service", _OF_ANOTHER),
    Check(9, "is the message of a child, and does not exist", _OF_NOBODY),
    Check(
        9,
        "went through an account of another service, or was moved by another account's receipt",
        "SELECT m.id, 'account ' || c.id FROM message m JOIN attempt a ON a.message_id = m.id AND a.message_id >= %(floor)s"
        " JOIN account c ON c.id = a.account_id WHERE m.id >= %(floor)s AND c.service_id <> m.service_id UNION ALL"
        " SELECT m.id, 'receipt ' || r.id FROM receipt r JOIN message m ON m.id = r.message_id AND m.id >= %(floor)s"
        " WHERE r.message_id >= %(floor)s AND r.effect = 'moved' AND r.account_id <> m.account_id",
    ),
)
