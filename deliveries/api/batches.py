"""Batches: many messages in one call, as one JSON body or as lines that are committed while they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from uuid_utils.compat import uuid7 as mint

from deliveries import intake
from deliveries.api import serializers as shapes
from deliveries.api.messages import refuse_large, service_of
from deliveries.api.parsing import StrictJSONParser, strict
from deliveries.api.problems import Problem
from deliveries.conf import limits
from deliveries.intake.fields import uuid7
from deliveries.models import Batch, Service
from deliveries.models.messages import Origin

CHUNK = 500
REJECTED_SHOWN = 10_000


class NdjsonParser(BaseParser):
    """Leaves the stream alone: the view reads it line by line."""

    media_type = "application/x-ndjson"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        return stream


class Intake:
    """One batch while it is taken in: rows are checked, committed in chunks and counted."""

    def __init__(self, service: Service, batch: Batch, request_id: str) -> None:
        self.service = service
        self.batch = batch
        self.request_id = request_id
        self.accepted = self.duplicates = self.refused = 0
        self.rejected: list[dict[str, Any]] = []
        self._chunk: list[tuple[int, intake.Draft]] = []

    def add(self, index: int, row: Any) -> None:
        """Check one row; commit when a chunk is full."""
        try:
            self._chunk.append((index, intake.draft(self.service, row)))
        except intake.InvalidMessage as error:
            self.reject(index, error.errors)
        if len(self._chunk) >= CHUNK:
            self.flush()

    def reject(self, index: int, errors: dict[str, list[str]]) -> None:
        """Count a bad row; the first 10,000 are told one by one."""
        self.refused += 1
        if len(self.rejected) < REJECTED_SHOWN:
            self.rejected.append({"index": index, "errors": errors})

    def flush(self) -> None:
        """Commit what is checked."""
        chunk, self._chunk = self._chunk, []
        answers = intake.accept(
            [item for _, item in chunk], origin=Origin.BATCH, batch_id=self.batch.pk, request_id=self.request_id
        )
        for (index, _), answer in zip(chunk, answers, strict=True):
            if answer.conflict is not None:
                field = "id" if isinstance(answer.conflict, intake.IdTaken) else "key"
                self.reject(index, {field: [str(answer.conflict)]})
            elif answer.fresh:
                self.accepted += 1
            else:
                self.duplicates += 1

    def finish(self) -> dict[str, Any]:
        """Commit the rest and write the counts down."""
        self.flush()
        Batch.objects.filter(pk=self.batch.pk).update(
            accepted=F("accepted") + self.accepted,
            duplicates=F("duplicates") + self.duplicates,
            rejected=F("rejected") + self.refused,
        )
        self.rejected.sort(key=lambda row: row["index"])
        return {
            "id": self.batch.pk,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
        }


class BatchesView(APIView):
    """`/batches`."""

    parser_classes = [StrictJSONParser, NdjsonParser]

    @extend_schema(
        operation_id="send_batch",
        request={"application/json": shapes.BatchIn, "application/x-ndjson": shapes.BatchRow},
        responses={202: shapes.BatchOut, 413: shapes.ProblemOut, 422: shapes.ProblemOut, 503: shapes.ProblemOut},
    )
    def post(self, request: Request) -> Response:
        """Accept many messages. Good rows are kept when others are bad; a repeat with the same keys doubles nothing."""
        if (request.content_type or "").startswith(NdjsonParser.media_type):
            return Response(self._lines(request), status=202)
        refuse_large(request, limits().batch_bytes)
        given: Any = request.data
        rows = _rows(given)
        taken = _open(request, given.get("id"))
        for index, row in enumerate(rows):
            taken.add(index, row)
        return Response(taken.finish(), status=202)

    @staticmethod
    def _lines(request: Request) -> dict[str, Any]:
        taken = _open(request, request.query_params.get("id"))
        for index, line in enumerate(lines(request.stream)):
            if index >= limits().stream_rows:
                taken.reject(
                    index, {"message": [f"comes after {limits().stream_rows:,} rows; send it in another batch"]}
                )
                break
            try:
                taken.add(index, strict(line))
            except ValueError as error:
                taken.reject(index, {"message": [f"is not valid JSON: {error}"]})
        return taken.finish()


def lines(stream: Any) -> Iterator[bytes]:
    """The lines of a stream that are not blank, at constant memory. Raises ``Problem`` for one over 1 MB."""
    limit = limits().message_bytes
    while line := stream.readline(limit + 1):
        if len(line) > limit:
            raise Problem(413, "too_large", f"A line is longer than {limit:,} bytes. Earlier rows were kept.")
        if line.strip():
            yield line


def _rows(given: Any) -> Sequence[Any]:
    rows = given.get("messages") if isinstance(given, dict) else None
    if not isinstance(rows, list) or not rows:
        reason = "must be a list of at least one message"
        raise Problem(422, "invalid_batch", f"Nothing was stored: messages {reason}.", {"messages": [reason]})
    if len(rows) > limits().batch_rows:
        reason = (
            f"has {len(rows):,} rows; at most {limits().batch_rows:,} are taken as JSON, more as application/x-ndjson"
        )
        raise Problem(413, "too_large", f"Nothing was stored: messages {reason}.", {"messages": [reason]})
    return rows


def _open(request: Request, given: Any) -> Intake:
    service = service_of(request)
    try:
        batch_id = uuid7(given) if given else mint()
    except ValueError as error:
        raise Problem(422, "invalid_batch", f"Nothing was stored: id {error}.", {"id": [str(error)]}) from error
    batch, _ = Batch.objects.get_or_create(pk=batch_id, defaults={"service": service})
    if batch.service_id != service.pk:
        raise Problem(404, "not_found", "No batch with this id belongs to this service.")
    return Intake(service, batch, getattr(request, "request_id", ""))


COUNTS = """
SELECT CASE WHEN m.status = 'queued' AND p.lease_until IS NOT NULL THEN 'sending' ELSE m.status END AS effective, count(*),
       count(m.finished_at) + count(*) FILTER (WHERE m.status IN ('sent', 'delivered')),
       min(m.created_at), max(coalesce(m.sent_at, m.finished_at))
FROM message m LEFT JOIN pending p ON p.message_id = m.id WHERE m.batch_id = %s GROUP BY effective
"""


class BatchView(APIView):
    """`/batches/{id}`."""

    @extend_schema(operation_id="get_batch", responses={200: shapes.BatchState, 404: shapes.ProblemOut})
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
