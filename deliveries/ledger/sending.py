"""Invariants 4, 5 and 6: one attempt at a time and in order, nothing is sent without proof, no duplicate without a doubt."""

from __future__ import annotations

from deliveries.ledger.checks import Check

#: An attempt that a provider took: it said so, in time or after its lease.
TAKEN = "(a.outcome = 'accepted' OR coalesce(a.late ->> 'outcome', '') = 'accepted')"

CHECKS = (
    Check(
        4,
        "is stored as sending, which only a lease may say",
        "SELECT m.id, 'token ' || coalesce(p.lease_token::text, 'of no lease') FROM message m"
        " LEFT JOIN pending p ON p.message_id = m.id AND p.message_id >= %(floor)s"
        " WHERE m.id >= %(floor)s AND m.status = 'sending'",
    ),
    Check(
        4,
        "is under a lease without an open attempt of its token",
        "SELECT p.message_id, 'token ' || p.lease_token FROM pending p WHERE p.message_id >= %(floor)s"
        " AND p.lease_until IS NOT NULL AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message_id = p.message_id"
        "  AND a.token = p.lease_token AND a.finished_at IS NULL)",
    ),
    Check(
        4,
        "has a lease that ends too late, or ended long ago",
        "SELECT message_id, 'until ' || lease_until FROM pending WHERE message_id >= %(floor)s AND lease_until NOT BETWEEN"
        " %(swept)s AND chaski_now() + make_interval(secs => %(leases)s)",
    ),
    Check(
        4,
        "is under a lease, and nothing that may be sent",
        "SELECT p.message_id, m.status FROM pending p JOIN message m ON m.id = p.message_id AND m.id >= %(floor)s"
        " WHERE p.message_id >= %(floor)s AND p.lease_until IS NOT NULL"
        # receipts may be quicker than the record of the send
        " AND m.status NOT IN ('queued', 'sending', 'sent', 'delivered', 'read', 'undelivered')",
    ),
    Check(
        4,
        "has an open attempt that no lease holds",
        "SELECT a.message_id, 'attempt ' || a.number FROM attempt a WHERE a.message_id >= %(floor)s"
        " AND a.finished_at IS NULL AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.message_id = a.message_id"
        "  AND p.lease_token = a.token)",
    ),
    Check(
        4,
        "has two attempts at once",
        "SELECT b.message_id, 'attempts ' || b.before || ' and ' || b.number FROM (SELECT message_id, number, opened_at,"
        "  lag(number) OVER w AS before, coalesce(lag(finished_at) OVER w, 'infinity') AS ended"
        "  FROM attempt WHERE message_id >= %(floor)s WINDOW w AS (PARTITION BY message_id ORDER BY number)) b"
        " WHERE b.before IS NOT NULL AND b.opened_at < b.ended",
    ),
    Check(
        4,
        "began before its turn, while one before it in its order had not ended and not stepped aside",
        # Of each key: when each began, and when the last of those that were accepted before it left its way, all by the
        # database's clock. Of one that an attempt ended that is when this attempt began, since a result's time is its worker's;
        # of one that a receipt ended nothing is known. What one statement accepted has one time, and is not compared.
        "SELECT id, 'began at ' || began || ', its way was free at ' || free FROM (SELECT m.id, a.began, max(e.left_at) OVER"
        "  (PARTITION BY m.service_id, m.ordering_key ORDER BY m.created_at GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        "  AS free FROM (SELECT id, service_id, ordering_key, created_at FROM message"
        "   WHERE id >= %(floor)s AND ordering_key <> '') m"
        "  CROSS JOIN LATERAL (SELECT min(begun_at) AS began FROM attempt WHERE message_id = m.id) a"
        "  LEFT JOIN LATERAL (SELECT at, actor, attempt FROM event WHERE message_id = m.id AND (starts_with(reason, %(aside)s)"
        "   OR status NOT IN ('queued', 'sending', 'in_doubt')) ORDER BY sequence LIMIT 1) o ON true"
        "  CROSS JOIN LATERAL (SELECT CASE WHEN o.at IS NULL THEN 'infinity' WHEN o.actor = 'provider' THEN '-infinity'"
        "   WHEN o.attempt IS NULL THEN o.at ELSE (SELECT begun_at FROM attempt WHERE message_id = m.id AND number = o.attempt)"
        "   END AS left_at) e) w WHERE began <= free",
    ),
    Check(
        5,
        "says sent, and no attempt, receipt or operator does",
        "SELECT m.id, m.status FROM message m WHERE m.id >= %(floor)s AND m.status IN ('sent', 'delivered', 'read')"
        f" AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message_id = m.id AND {TAKEN})"
        " AND NOT EXISTS (SELECT 1 FROM receipt r WHERE r.message_id = m.id AND r.effect = 'moved')"
        " AND NOT EXISTS (SELECT 1 FROM audit u WHERE u.target = m.id::text AND u.action = 'resolve'"
        "  AND u.detail ->> 'verdict' = 'sent')",
    ),
    Check(
        5,
        "says what only a receipt can say, and none does",
        "SELECT m.id, m.status FROM message m WHERE m.id >= %(floor)s AND m.status IN ('delivered', 'read', 'undelivered')"
        " AND NOT EXISTS (SELECT 1 FROM receipt r WHERE r.message_id = m.id AND r.effect = 'moved')",
    ),
    Check(
        5,
        "was accepted without the id that its provider gives to others",
        "WITH taken AS (SELECT a.message_id, a.number, m.provider, a.provider_message_id FROM attempt a"
        "  JOIN message m ON m.id = a.message_id AND m.id >= %(floor)s"
        f"  WHERE a.message_id >= %(floor)s AND {TAKEN})"
        " SELECT message_id, provider || ', attempt ' || number FROM taken WHERE provider_message_id = ''"
        " AND provider IN (SELECT provider FROM taken WHERE provider_message_id <> '')",
    ),
    Check(
        6,
        "was accepted by providers more often than its doubts explain",
        "SELECT m.id, a.n || ' accepts, ' || m.in_doubt_count || ' doubts, ' || m.redelivery_count || ' redeliveries'"
        f" FROM message m JOIN (SELECT message_id, count(*) AS n FROM attempt a WHERE message_id >= %(floor)s AND {TAKEN}"
        "  GROUP BY message_id) a ON a.message_id = m.id"
        " WHERE m.id >= %(floor)s AND a.n > 1 + m.in_doubt_count + m.redelivery_count",
    ),
    Check(
        6,
        "was tried again after it was accepted, and nobody put it back",
        # in time: who records an acceptance under its lease ends the message; what came late is counted above
        "SELECT m.id, 'attempt ' || min(n.number) FROM message m JOIN attempt a ON a.message_id = m.id"
        "  AND a.message_id >= %(floor)s AND a.outcome = 'accepted'"
        " JOIN attempt n ON n.message_id = m.id AND n.message_id >= %(floor)s AND n.number = a.number + 1"
        " WHERE m.id >= %(floor)s GROUP BY m.id, m.redelivery_count HAVING count(*) > m.redelivery_count",
    ),
    Check(
        6,
        "was accepted by a provider, and says that it was not sent",
        "SELECT m.id, m.status || ', attempt ' || a.number FROM attempt a JOIN message m ON m.id = a.message_id"
        " AND m.id >= %(floor)s WHERE a.message_id >= %(floor)s AND a.outcome = 'accepted'"
        " AND m.status IN ('failed', 'expired', 'canceled', 'suppressed') AND m.redelivery_count = 0",
    ),
)
