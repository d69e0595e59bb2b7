"""The checks that compare the rows with outside evidence, which ``deliveries.ledger.outside`` has laid open as tables."""

from __future__ import annotations

from deliveries.ledger.checks import Check
from deliveries.ledger.sending import TAKEN

#: What a provider may have accepted although the attempt says nothing of it: the answer was lost, or the call is under way.
_EXPLAINS = f"a.begun_at IS NOT NULL AND (a.outcome IN ('', 'in_doubt', 'transient', 'poison') OR {TAKEN})"
_ACCEPTS = "SELECT message_id, count(*) AS n FROM outside_accepted WHERE message_id >= %(floor)s GROUP BY message_id"

TOLD = (
    Check(
        2,
        "was told to a client, and does not exist",
        "SELECT t.id, t.service FROM outside_told t LEFT JOIN message m ON m.id = t.id AND m.id >= %(floor)s"
        " WHERE t.id >= %(floor)s AND t.told AND m.id IS NULL",
        "told",
    ),
    Check(
        2,
        "was told to a client of another service",
        "SELECT m.id, 'told to ' || t.service || ', is of ' || s.name FROM outside_told t"
        " JOIN message m ON m.id = t.id AND m.id >= %(floor)s JOIN service s ON s.id = m.service_id"
        " WHERE t.id >= %(floor)s AND t.service NOT IN ('', s.name, s.id::text)",
        "told",
    ),
    Check(
        # A client asks over the API alone. Whoever sends from a shell, tests an account or makes callbacks keeps no such book;
        # an act on a message (redeliver, resolve) makes no other.
        2,
        "exists, and no client asked for it",
        "SELECT m.id, s.name FROM service s JOIN message m ON m.service_id = s.id AND m.origin IN ('api', 'batch')"
        " WHERE (s.name IN (SELECT service FROM outside_told) OR s.id::text IN (SELECT service FROM outside_told))"
        " AND m.id >= greatest(%(floor)s::uuid, (SELECT id FROM outside_told ORDER BY id LIMIT 1))"
        " AND NOT EXISTS (SELECT 1 FROM outside_told t WHERE t.id = m.id)",
        "told",
    ),
)

ACCEPTED = (
    Check(
        2,
        "was accepted by a provider, and does not exist",
        f"SELECT l.message_id, l.n || ' accepts' FROM ({_ACCEPTS}) l"
        " LEFT JOIN message m ON m.id = l.message_id AND m.id >= %(floor)s WHERE m.id IS NULL",
        "accepted",
    ),
    Check(
        5,
        "says that a provider accepted it, and the provider knows nothing of it",
        "SELECT a.message_id, m.provider || ', attempt ' || a.number FROM attempt a"
        " JOIN message m ON m.id = a.message_id AND m.id >= %(floor)s WHERE a.message_id >= %(floor)s"
        " AND m.provider IN (SELECT provider FROM outside_accepted) AND a.outcome = 'accepted'"
        " AND a.begun_at > (SELECT min(at) FROM outside_accepted)"
        " AND NOT EXISTS (SELECT 1 FROM outside_accepted l WHERE l.message_id = a.message_id)"
        " AND NOT EXISTS (SELECT 1 FROM outside_accepted l WHERE l.message_id IS NULL AND l.provider = m.provider"
        "  AND l.provider_message_id = a.provider_message_id)",
        "accepted",
    ),
    Check(
        6,
        "was accepted more often, by the providers' own books, than its doubts explain",
        "SELECT m.id, l.n || ' accepts, ' || m.in_doubt_count || ' doubts, ' || m.redelivery_count || ' redeliveries'"
        f" FROM ({_ACCEPTS}) l JOIN message m ON m.id = l.message_id AND m.id >= %(floor)s"
        " WHERE l.n > 1 + m.in_doubt_count + m.redelivery_count",
        "accepted",
    ),
    Check(
        6,
        "was accepted by a provider, and no attempt of it explains that",
        f"SELECT l.message_id, l.n || ' accepts' FROM ({_ACCEPTS}) l"
        " WHERE EXISTS (SELECT 1 FROM message m WHERE m.id = l.message_id AND m.id >= %(floor)s)"
        " AND l.n > (SELECT count(*) FROM attempt a"
        f" WHERE a.message_id = l.message_id AND {_EXPLAINS})",
        "accepted",
    ),
    Check(
        6,
        "was accepted for somebody, and no attempt explains that",
        # the wire carries no id of ours: by the provider's, else one doubtful attempt to that recipient for each
        "SELECT l.provider_message_id, l.provider FROM (SELECT *, row_number() OVER (PARTITION BY provider, recipient"
        "  ORDER BY at) AS n FROM outside_accepted o WHERE message_id IS NULL AND at >= %(since)s AND ("
        "  SELECT 1 FROM attempt a WHERE a.provider_message_id = o.provider_message_id AND a.provider_message_id <> ''"
        "  LIMIT 1) IS NULL) l"
        " WHERE l.n > (SELECT count(*) FROM message m CROSS JOIN LATERAL (SELECT 1 FROM attempt a WHERE a.message_id = m.id"
        f"  AND {_EXPLAINS} AND NOT {TAKEN} OFFSET 0) a WHERE m.recipient = l.recipient AND m.provider = l.provider)",
        "accepted",
    ),
    Check(
        6,
        "was accepted by a provider, says that it was not sent, and nothing marks it",
        f"SELECT m.id, m.status FROM ({_ACCEPTS}) l JOIN message m ON m.id = l.message_id AND m.id >= %(floor)s"
        " WHERE m.status IN ('failed', 'expired', 'canceled', 'suppressed') AND m.in_doubt_count = 0"
        f" AND m.redelivery_count = 0 AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.message_id = m.id AND {TAKEN})",
        "accepted",
    ),
)

RECEIVED = (
    Check(
        10,
        "reached a receiver, and no callback has it",
        "SELECT DISTINCT r.message_id, 'event ' || r.sequence FROM outside_received r WHERE r.message_id >= %(floor)s"
        " AND NOT EXISTS (SELECT 1 FROM message m WHERE m.id = r.message_id AND m.id >= %(floor)s"
        "  AND m.created_at <= chaski_told_since())"
        " AND NOT EXISTS (SELECT 1 FROM told t WHERE t.message_id = r.message_id AND t.sequence = r.sequence)",
        "received",
    ),
    Check(
        10,
        "was told by a callback that was sent, and did not reach the receiver",
        "SELECT t.message_id, 'event ' || t.sequence || ' by ' || t.callback_id FROM told t"
        " CROSS JOIN LATERAL (SELECT status FROM message WHERE id = t.callback_id LIMIT 1) c"
        " WHERE c.status IN ('sent', 'delivered', 'read') AND t.service_id IN (SELECT (SELECT service_id FROM message"
        "  WHERE id = r.message_id) FROM outside_received r)"
        " AND t.message_id >= greatest(%(floor)s::uuid, (SELECT message_id FROM outside_received ORDER BY message_id LIMIT 1))"
        " AND NOT EXISTS (SELECT 1 FROM outside_received r WHERE r.message_id = t.message_id AND r.sequence = t.sequence)",
        "received",
    ),
)

CHECKS = (*TOLD, *ACCEPTED, *RECEIVED)
