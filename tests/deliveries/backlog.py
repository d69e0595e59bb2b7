"""A large backlog by the shortest way, for tests of plans and of costs."""

from __future__ import annotations

from django.db import connection


def fill(service_id: int, count: int) -> None:
    """``count`` waiting messages of one service, analysed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pending (message_id, channel, lane, service_id, account_id, due_at, expires_at, blocked,"
            " waiting_for, ordering_key, solitary, suspicion, attempt_count, tries, crash_count, blind_count)"
            " SELECT id, 'sms', 1, %(service)s, (SELECT min(id) FROM account), chaski_now(),"
            "  chaski_now() + interval '1 day', false, '', '', false, 0, 0, 0, 0, 0"
            " FROM (SELECT uuidv7() AS id FROM generate_series(1, %(count)s)) s",
            {"service": service_id, "count": count},
        )
        cursor.execute(
            'INSERT INTO message (id, service_id, account_id, channel, provider, lane, status, origin, recipient, "to",'
            " reference, ordering_key, idempotency_key, request_id, tags, content, options, metadata, event_sequence,"
            " attempt_count, in_doubt_count, redelivery_count, provider_message_id, error_class, error_code, error_detail,"
            " created_at, updated_at, expires_at)"
            " SELECT p.message_id, p.service_id, p.account_id, 'sms', 'sandbox', 1, 'queued', 'api', '+56912345678', '',"
            "  '', '', '', '', '{}', '{}', '{}', '{}', 1, 0, 0, 0, '', '', '', '', chaski_now(), chaski_now(), p.expires_at"
            " FROM pending p LEFT JOIN message m ON m.id = p.message_id WHERE m.id IS NULL"
        )
        cursor.execute("ANALYZE pending, message")
