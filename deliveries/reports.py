"""Numbers over many messages: counts, rates, latencies. Read by the API, `up_report` and the admin. Reads only."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection

GROUPS = {
    "channel": "m.channel",
    "provider": "m.provider",
    "status": "m.status",
    "lane": "(ARRAY['urgent', 'normal', 'bulk'])[m.lane + 1]",
    "hour": "to_char(date_trunc('hour', m.created_at), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
}

_SUMMARY = """
SELECT {group} AS name, count(*) AS messages,
    count(*) FILTER (WHERE m.status IN ('sent', 'delivered', 'read')) AS sent,
    count(*) FILTER (WHERE m.status IN ('delivered', 'read')) AS delivered,
    count(*) FILTER (WHERE m.status IN ('failed', 'undelivered', 'expired', 'suppressed')) AS failed,
    count(*) FILTER (WHERE m.attempt_count > 1) AS retried,
    count(*) FILTER (WHERE m.status = 'in_doubt') AS in_doubt,
    count(*) FILTER (WHERE m.in_doubt_count > 0) AS doubted,
    round(1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM m.sent_at - m.created_at))
        ::numeric)::int AS p50_ms,
    round(1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM m.sent_at - m.created_at))
        ::numeric)::int AS p99_ms
FROM message m WHERE {where} GROUP BY 1 ORDER BY 1
"""


def summary(service_id: int, since: UUID, until: UUID, group_by: str) -> dict[str, Any]:
    """The messages of a service minted from ``since`` to before ``until``, grouped by one of ``GROUPS``."""
    where = "m.service_id = %(service_id)s AND m.id >= %(since)s AND m.id < %(until)s AND m.origin <> 'callback'"
    rows = _rows(where, GROUPS[group_by], {"service_id": service_id, "since": since, "until": until})
    for row in rows:
        row["success_rate"] = round(row["sent"] / row["messages"], 4)
    return {"group_by": group_by, "groups": rows}


def per_channel(batches: list[UUID]) -> dict[str, dict[str, Any]]:
    """The messages of ``batches`` by channel."""
    rows = _rows("m.batch_id = ANY(%(batches)s)", GROUPS["channel"], {"batches": batches})
    shown = ("sent", "failed", "retried", "in_doubt", "p50_ms", "p99_ms")
    return {row["name"]: {name: row[name] for name in shown} for row in rows}


def _rows(where: str, group: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        # Only our own constants are formatted in; values travel as parameters.
        cursor.execute(_SUMMARY.format(group=group, where=where), parameters)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
