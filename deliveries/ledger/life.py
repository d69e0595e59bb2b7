"""Invariants 3 and 7: the history of each message has no gap and no forbidden step, its counts and limits hold."""

from __future__ import annotations

from deliveries.ledger.checks import Check

CHECKS = (
    Check(
        3,
        "its events have a gap, or do not end where it is",
        "SELECT m.id, m.status || ', ' || m.event_sequence || ' events told, ' || e.n || ' kept, the last ' || e.last"
        " FROM message m CROSS JOIN LATERAL (SELECT count(*) AS n, max(sequence) AS top, coalesce((SELECT status FROM event"
        "  WHERE message_id = m.id ORDER BY sequence DESC LIMIT 1), 'none') AS last FROM event WHERE message_id = m.id) e"
        " WHERE m.id >= %(floor)s AND (e.n <> m.event_sequence OR e.top IS DISTINCT FROM m.event_sequence OR e.last <> m.status)",
    ),
    Check(
        3,
        "made a move that is not allowed",
        "SELECT e.message_id, coalesce(e.before, 'nothing') || ' -> ' || e.status FROM (SELECT message_id, status, reason,"
        "  lag(status) OVER (PARTITION BY message_id ORDER BY sequence) AS before FROM event WHERE message_id >= %(floor)s) e"
        " WHERE NOT EXISTS (SELECT 1 FROM unnest(%(froms)s::text[], %(tos)s::text[]) AS a(b, s)"
        "  WHERE a.b = coalesce(e.before, 'nothing') AND a.s = e.status)"
        # the one event that is no move
        " AND NOT (e.status = e.before AND e.status IN ('queued', 'in_doubt') AND starts_with(e.reason, %(aside)s))",
    ),
    Check(
        3,
        "counts its redeliveries wrongly",
        "SELECT m.id, m.redelivery_count || ' counted, ' || coalesce(e.n, 0) || ' made' FROM message m LEFT JOIN"
        " (SELECT message_id, count(*) AS n FROM (SELECT message_id, status, lag(status)"
        "   OVER (PARTITION BY message_id ORDER BY sequence) AS before FROM event WHERE message_id >= %(floor)s) s"
        "  WHERE status = 'queued' AND before IN ('failed', 'undelivered', 'expired') GROUP BY message_id) e"
        " ON e.message_id = m.id WHERE m.id >= %(floor)s AND m.redelivery_count <> coalesce(e.n, 0)",
    ),
    Check(
        3,
        "is final and not finished, or finished and not final",
        "SELECT m.id, m.status FROM message m"
        " WHERE m.id >= %(floor)s AND (m.status = ANY(%(final)s)) <> (m.finished_at IS NOT NULL)",
    ),
    Check(
        7,
        "counts its attempts wrongly",
        "SELECT m.id, m.attempt_count || ' counted, ' || coalesce(a.closed, 0) || ' closed, numbered up to '"
        " || coalesce(a.top, 0) || coalesce(', the queue counts ' || p.attempt_count, '')"
        " FROM message m LEFT JOIN (SELECT message_id, max(number) AS top, count(*) AS n,"
        "  count(finished_at) AS closed FROM attempt WHERE message_id >= %(floor)s GROUP BY message_id) a"
        " ON a.message_id = m.id LEFT JOIN pending p ON p.message_id = m.id WHERE m.id >= %(floor)s"
        " AND (m.attempt_count <> coalesce(a.closed, 0) OR a.top <> a.n OR p.attempt_count <> coalesce(a.n, 0)"
        "  OR p.tries > p.attempt_count)",
    ),
    Check(
        7,
        "crashed more workers than it may",
        "SELECT message_id, crash_count || ' crashes' FROM pending"
        " WHERE message_id >= %(floor)s AND crash_count >= %(crashes)s",
    ),
    Check(
        7,
        "was repeated blindly more often than its account allows",
        "SELECT p.message_id, p.blind_count || ' of ' || c.blind_retries FROM pending p JOIN account c ON c.id = p.account_id"
        " JOIN message m ON m.id = p.message_id AND m.id >= %(floor)s"
        # as deliveries.retry.blind_bound says; an account that was changed since may have allowed more, and where a provider
        # knows our key no repeat is blind
        " WHERE p.message_id >= %(floor)s AND m.created_at > c.updated_at"
        " AND p.blind_count > CASE WHEN c.blind_retries > 0 THEN c.blind_retries + %(crashes)s ELSE 0 END"
        " AND NOT (c.channel, c.provider) IN (SELECT * FROM unnest(%(channels)s::text[], %(idempotent)s::text[]))",
    ),
    Check(
        7,
        "waits beyond its deadline",
        "SELECT message_id, 'since ' || expires_at FROM pending WHERE message_id >= %(floor)s AND lease_until IS NULL"
        " AND NOT (blocked AND waiting_for = 'operator')"
        " AND expires_at < %(swept)s",
    ),
    Check(
        7,
        "has another deadline in the queue",
        "SELECT m.id, m.expires_at || ', in the queue ' || p.expires_at FROM pending p"
        " JOIN message m ON m.id = p.message_id AND m.id >= %(floor)s"
        " WHERE p.message_id >= %(floor)s AND p.expires_at <> m.expires_at",
    ),
    Check(
        7,
        "waits for a predecessor that is gone",
        "SELECT p.message_id, 'since ' || p.due_at FROM pending p WHERE p.message_id >= %(floor)s AND p.ordering_key <> ''"
        " AND p.blocked AND p.waiting_for = 'predecessor'"
        " AND p.due_at < %(swept)s"
        " AND (SELECT 1 FROM pending h WHERE h.service_id = p.service_id AND h.ordering_key = p.ordering_key"
        "  AND h.ordering_key <> '' AND h.position < p.position LIMIT 1) IS NULL",
    ),
)
