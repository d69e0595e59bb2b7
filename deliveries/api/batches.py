"""Batches: many messages in one call, as one JSON body or as lines that are committed while they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from uuid_utils.compat import uuid7 as mint

from deliveries.api import serializers as shapes
from deliveries.api.bodies import JSON, LINES, content_type_of, json_of, lines
from deliveries.api.messages import service_of
from deliveries.api.parsing import StrictJSONParser, strict
from deliveries.api.problems import Problem
from deliveries.conf import limits
from deliveries.intake.batch import BatchIntake, Counts
from deliveries.intake.fields import uuid7
from deliveries.models import Batch

_MEMBERS = ("id", "messages")
_ID = OpenApiParameter("id", UUID, description="For application/x-ndjson: the batch to add to, a UUIDv7.")


class Lines(BaseParser):
    """Names the media type for OpenAPI; the view reads the body itself, line by line."""

    media_type = LINES


class BatchesView(APIView):
    """`/batches`."""

    parser_classes = [StrictJSONParser, Lines]

    @extend_schema(
        operation_id="send_batch",
        parameters=[_ID],
        request={JSON: shapes.BatchIn, LINES: shapes.BatchRow},
        responses=shapes.answers({202: shapes.BatchOut}, 400, 404, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Accept many messages. Good rows are kept when others are bad; a repeat with the same keys doubles nothing."""
        if content_type_of(request, JSON, LINES) == LINES:
            with _open(request, request.query_params.get("id")) as taken:
                try:
                    _stream(taken, request)
                except Problem:
                    taken.finish()  # what came before the stream broke is kept, as the problem says
                    raise
                counts = taken.finish()
        else:
            given = json_of(request, limits().batch_bytes)
            rows = _rows(given)
            with _open(request, given.get("id")) as taken:
                for index, row in enumerate(rows):
                    taken.add(index, row)
                counts = taken.finish()
        return Response(_shown(taken.batch, counts), status=202)


def _shown(batch: Batch, counts: Counts) -> dict[str, Any]:
    return {
        "id": batch.pk,
        "accepted": counts.accepted,
        "duplicates": counts.duplicates,
        "rejected": [{"index": index, "errors": errors} for index, errors in counts.rejected],
        "rejected_count": counts.refused,
    }


def _stream(taken: BatchIntake, request: Request) -> None:
    longest, most = limits().message_bytes, limits().stream_rows
    for index, line in enumerate(lines(request._request, longest)):
        if index >= most:
            taken.reject(index, {"message": [f"and all after it come after {most:,} rows; send another batch"]})
            return
        if line is None:
            taken.reject(index, {"message": [f"is longer than {longest:,} bytes"]})
            continue
        try:
            taken.add(index, strict(line))
        except ValueError as error:
            taken.reject(index, {"message": [f"is not valid JSON: {error}"]})


def _rows(given: Any) -> Sequence[Any]:
    unknown = [str(name)[:64] for name in given if name not in _MEMBERS] if isinstance(given, dict) else []
    if unknown:
        raise _invalid(unknown[0].encode(errors="backslashreplace").decode(), f"is none of {' and '.join(_MEMBERS)}")
    rows = given.get("messages") if isinstance(given, dict) else None
    if not isinstance(rows, list) or not rows:
        raise _invalid("messages", "must be a list of at least one message")
    if len(rows) > limits().batch_rows:
        most = f"at most {limits().batch_rows:,} are taken as JSON, more as {LINES}"
        raise _invalid("messages", f"has {len(rows):,} rows; {most}", status=413, code="too_large")
    return rows


def _invalid(name: str, reason: str, *, status: int = 422, code: str = "invalid_batch") -> Problem:
    return Problem(status, code, f"Nothing was stored: {name} {reason}.", {name: [reason]})


def _open(request: Request, given: Any) -> BatchIntake:
    service = service_of(request)
    try:
        batch_id = mint() if given is None else uuid7(given)
    except ValueError as error:
        raise _invalid("id", str(error)) from error
    batch, _ = Batch.objects.get_or_create(pk=batch_id, defaults={"service": service})
    if batch.service_id != service.pk:
        raise Problem(404, "not_found", "No batch with this id belongs to this service.")
    return BatchIntake(service, batch, getattr(request, "request_id", ""))


COUNTS = """
SELECT CASE WHEN m.status = 'queued' AND p.lease_until IS NOT NULL THEN 'sending' ELSE m.status END AS effective, count(*),
       count(m.finished_at) + count(*) FILTER (WHERE m.status IN ('sent', 'delivered')),
       min(m.created_at), max(coalesce(m.sent_at, m.finished_at))
FROM message m LEFT JOIN pending p ON p.message_id = m.id WHERE m.batch_id = %s GROUP BY effective
"""


class BatchView(APIView):
    """`/batches/{id}`."""

    @extend_schema(operation_id="get_batch", responses=shapes.answers({200: shapes.BatchState}, 404))
    def get(self, request: Request, batch_id: UUID) -> Response:
        """How many messages of the batch are in which status, and when the last will have been handed over."""
        batch = Batch.objects.filter(pk=batch_id, service=service_of(request)).first()
        if batch is None:
            raise Problem(404, "not_found", "No batch with this id belongs to this service.")
        return Response(state(batch))


def state(batch: Batch) -> dict[str, Any]:
    """The counts of ``batch``, and a forecast from its own pace so far."""
    with connection.cursor() as cursor:
        cursor.execute(COUNTS, [batch.pk])
        rows = cursor.fetchall()
    counts = {status: count for status, count, *_ in rows}
    done = sum(row[2] for row in rows)
    begun = min((row[3] for row in rows), default=None)
    latest = max((row[4] for row in rows if row[4]), default=None)
    return {
        "id": batch.pk,
        "accepted": batch.accepted,
        "duplicates": batch.duplicates,
        "rejected": batch.rejected,
        "counts": counts,
        "finished": done,
        "created_at": batch.created_at,
        "forecast_at": _forecast(sum(counts.values()), done, begun, latest),
    }


def _forecast(total: int, done: int, begun: datetime | None, latest: datetime | None) -> datetime | None:
    if not done or begun is None or latest is None or done >= total:
        return latest if done >= total else None
    pace = max((latest - begun).total_seconds(), 0.001) / done
    return latest + timedelta(seconds=pace * (total - done))
