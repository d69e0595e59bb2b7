"""What a service sees of itself: who it is, its suppressions, its numbers, previews of its templates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from channels.base import InvalidRecipient
from channels.media import MEDIA
from deliveries import acts, intake, reports
from deliveries.api import service_serializers as shapes
from deliveries.api.bodies import json_of
from deliveries.api.filters import floor, invalid, refuse_unknown, time_of
from deliveries.api.messages import service_of
from deliveries.api.problems import Problem
from deliveries.api.serializers import MessageIn, answers
from deliveries.conf import limits
from deliveries.intake.draft import Draft
from deliveries.intake.fields import text_of
from deliveries.models import Contact, Suppression

_LONGEST = timedelta(days=92)
_EARLIEST = datetime.min.replace(tzinfo=UTC)

USAGE = """
SELECT count(*), (SELECT count(*) FROM pending WHERE service_id = %(service_id)s)
FROM acceptance WHERE service_id = %(service_id)s AND message_id >= %(floor)s
"""


class MeView(APIView):
    """`/me`."""

    @extend_schema(operation_id="me", responses=answers({200: shapes.Me}))
    def get(self, request: Request) -> Response:
        """The service, its limits and what it used in the last hour."""
        service = service_of(request)
        with connection.cursor() as cursor:
            since = floor(datetime.now(UTC) - timedelta(hours=1))
            cursor.execute(USAGE, {"service_id": service.pk, "floor": since})
            accepted, waiting = cursor.fetchone()
        bounds = limits()
        return Response(
            {
                "id": service.pk,
                "name": service.name,
                "test": service.test,
                "limits": {
                    "message_bytes": bounds.message_bytes,
                    "file_bytes": bounds.file_bytes,
                    "batch_rows": bounds.batch_rows,
                    "batch_bytes": bounds.batch_bytes,
                    "stream_rows": bounds.stream_rows,
                },
                "ordering": {"wait_seconds": service.order_wait_seconds, "then": service.order_then},
                "usage": {"accepted_last_hour": accepted, "unfinished": waiting},
            }
        )


class PreviewView(APIView):
    """`/previews`."""

    @extend_schema(
        operation_id="preview",
        request=MessageIn,
        responses=answers({200: shapes.Preview}, 400, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """What a message would say, and which account would carry it. Nothing is stored."""
        given = json_of(request, limits().message_bytes)
        try:
            checked = intake.draft(service_of(request), given)
        except intake.InvalidMessage as error:
            raise Problem(422, "invalid_message", f"It could not be sent: {error}.", error.errors) from error
        content = checked.content
        return Response(
            {
                "channel": checked.channel,
                "to": checked.to,
                "recipient": checked.recipient,
                "account": checked.account.name,
                "provider": checked.account.provider,
                "send_at": checked.send_at,
                "expires_at": checked.expires_at,
                **{part: content.get(part, "") for part in ("text", "subject", "html")},
                "template": content.get("template"),
                "template_version": content.get("template_version"),
                "last_reply_at": _last_reply_at(checked),
            }
        )


def _last_reply_at(checked: Draft) -> datetime | None:
    """Of accounts of its own alone: what comes to one that services share is for whom it was written to."""
    account = checked.account
    if account.service_id != checked.service_id:
        return None
    wrote = Contact.objects.filter(account_id=account.id, person=checked.recipient)
    return wrote.values_list("replied_at", flat=True).first()


class SuppressionsView(APIView):
    """`/suppressions`."""

    @extend_schema(operation_id="list_suppressions", responses=answers({200: shapes.SuppressionOut(many=True)}))
    def get(self, request: Request) -> Response:
        """The newest thousand of the service's own list."""
        own = Suppression.objects.filter(service=service_of(request)).order_by("-pk")[:1000]
        return Response([_suppression(row) for row in own])

    @extend_schema(
        operation_id="suppress",
        request=shapes.SuppressionIn,
        responses=answers({201: shapes.SuppressionOut, 200: shapes.SuppressionOut}, 400, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Never write to this recipient on this channel: 201, or 200 where it is on the list already."""
        given = json_of(request, limits().message_bytes)
        if not isinstance(given, dict):
            raise _refused("message", "must be a JSON object")
        for name in given:
            if name not in ("channel", "to", "reason"):
                raise _refused(str(name)[:64].encode(errors="backslashreplace").decode(), "is not a field here")
        channel, recipient = _whom(given)
        reason = _text(given, "reason", 500) or "asked by the service"
        service = service_of(request)
        made = acts.suppress(channel, recipient, service_id=service.pk, actor=f"service:{service.name}", reason=reason)
        kept = Suppression.objects.get(channel=channel, recipient=recipient, service=service)
        return Response(_suppression(kept), status=201 if made else 200)

    @extend_schema(
        operation_id="unsuppress",
        parameters=[OpenApiParameter("channel", str, required=True), OpenApiParameter("to", str, required=True)],
        responses=answers({204: None}, 404, 422),
    )
    def delete(self, request: Request) -> Response:
        """Take the recipient off the list."""
        channel, recipient = _whom(request.query_params)
        service = service_of(request)
        if not acts.unsuppress(channel, recipient, service_id=service.pk, actor=f"service:{service.name}"):
            raise Problem(404, "not_found", "This recipient is not on the service's list for this channel.")
        return Response(status=204)


def _suppression(row: Suppression) -> dict[str, Any]:
    return {"channel": row.channel, "to": row.recipient, "reason": row.reason, "created_at": row.created_at}


def _refused(name: str, reason: str) -> Problem:
    return Problem(422, "invalid_suppression", f"Nothing was stored: {name} {reason}.", {name: [reason]})


def _text(given: Mapping[str, Any], name: str, limit: int) -> str:
    try:
        return text_of(limit, lines=False)("" if given.get(name) is None else given[name])
    except ValueError as error:
        raise _refused(name, str(error)) from error


def _whom(given: Mapping[str, Any]) -> tuple[str, str]:
    channel, to = _text(given, "channel", 32), _text(given, "to", 2048)
    if channel not in MEDIA:
        raise _refused("channel", f"takes one of {', '.join(MEDIA)}")
    try:
        return channel, MEDIA[channel].normalise(to)
    except InvalidRecipient as error:
        raise _refused("to", str(error)) from error


class SummaryView(APIView):
    """`/reports/summary`."""

    @extend_schema(
        operation_id="summary",
        parameters=[
            OpenApiParameter("since", str, description="An ISO 8601 time with its zone; a day ago if left out."),
            OpenApiParameter("until", str, description="An ISO 8601 time with its zone; now if left out."),
            OpenApiParameter("group_by", str, enum=list(reports.GROUPS), description="channel if left out."),
        ],
        responses=answers({200: shapes.Summary}, 422),
    )
    def get(self, request: Request) -> Response:
        """Counts, rates and latency percentiles, of the last day unless told otherwise; at most of 92 days."""
        query = request.query_params
        refuse_unknown(query, ("since", "until", "group_by"))
        group_by = query.get("group_by") or "channel"
        if group_by not in reports.GROUPS:
            raise invalid("group_by", f"takes {', '.join(reports.GROUPS)}")
        until = time_of(query, "until") or datetime.now(UTC) + timedelta(minutes=1)
        since = time_of(query, "since") or until - min(timedelta(days=1), until - _EARLIEST)
        if not timedelta(0) < until - since <= _LONGEST:
            raise invalid("since", f"must come before until, and at most {_LONGEST.days} days before it")
        found = reports.summary(service_of(request).pk, floor(since), floor(until), group_by)
        return Response({"since": since, "until": until, **found})
