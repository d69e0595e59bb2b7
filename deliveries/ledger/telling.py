"""Invariant 10: every event that a service asked for is in exactly one callback.

That the callback itself is delivered, dead or under way needs no check of its own: it is a message like any other.
"""

from __future__ import annotations

from deliveries.ledger.checks import Check

CHECKS = (
    Check(
        10,
        "has an event that its service was not told for ten minutes",
        "SELECT u.message_id, 'event ' || u.sequence FROM untold u JOIN endpoint n ON n.service_id = u.service_id AND n.active"
        " JOIN event e ON e.message_id = u.message_id AND e.sequence = u.sequence AND e.message_id >= %(floor)s"
        " WHERE u.message_id >= %(floor)s AND e.at < %(swept)s::timestamptz - interval '10 minutes'"
        # the time of an event that a receipt proved is the provider's: it may be old and have come just now
        " AND NOT EXISTS (SELECT 1 FROM receipt r WHERE r.message_id = u.message_id"
        "  AND r.received_at > %(swept)s::timestamptz - interval '10 minutes')",
    ),
    Check(
        10,
        "has an event that its service asked for, and no callback has it",
        "SELECT m.id, 'event ' || e.sequence || ', ' || e.status FROM endpoint n JOIN message m ON m.service_id = n.service_id"
        " JOIN event e ON e.message_id = m.id AND e.message_id >= %(floor)s WHERE n.active AND m.id >= %(floor)s"
        " AND m.origin <> 'callback' AND e.sequence > 1 AND (n.events = '{}' OR e.status = ANY(n.events))"
        # what was asked for before the endpoint changed is known no more; its clock is that of a web process
        " AND m.created_at > greatest(n.updated_at + interval '5 seconds', chaski_told_since())"
        " AND NOT EXISTS (SELECT 1 FROM told t WHERE t.message_id = e.message_id AND t.sequence = e.sequence)"
        " AND NOT EXISTS (SELECT 1 FROM untold u WHERE u.message_id = e.message_id AND u.sequence = e.sequence)",
    ),
    Check(
        10,
        "has an event that was told and would be told again",
        "SELECT t.message_id, 'event ' || t.sequence FROM untold u"
        " JOIN told t ON t.message_id = u.message_id AND t.sequence = u.sequence AND t.message_id >= %(floor)s"
        " WHERE u.message_id >= %(floor)s",
    ),
    Check(
        10,
        "was told by a callback that does not exist",
        "SELECT t.message_id, 'event ' || t.sequence || ' by ' || t.callback_id FROM told t WHERE t.message_id >= %(floor)s"
        " AND NOT EXISTS (SELECT 1 FROM message c WHERE c.id = t.callback_id AND c.id >= %(floor)s AND c.origin = 'callback'"
        "  AND c.service_id = t.service_id)",
    ),
    Check(
        10,
        "is a reply that was not looked at, or that its service was not told, for ten minutes",
        "SELECT r.id, 'reply' FROM reply r LEFT JOIN endpoint n ON n.service_id = r.service_id AND n.active"
        " WHERE r.received_at >= %(since)s AND r.received_at < %(swept)s::timestamptz - interval '10 minutes'"
        " AND (r.applied_at IS NULL OR (n.id IS NOT NULL AND r.told_at IS NULL))",
    ),
    Check(
        10,
        "is a reply that was told by a callback that does not exist",
        "SELECT r.id, 'by ' || r.callback_id FROM reply r WHERE r.received_at >= %(since)s AND r.callback_id IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM message c WHERE c.id = r.callback_id AND c.origin = 'callback'"
        "  AND c.service_id = r.service_id)",
    ),
)
