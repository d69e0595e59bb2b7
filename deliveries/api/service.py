"""What a service sees of itself: who it is, its suppressions, its numbers, previews of its templates."""

from __future__ import annotations

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
from deliveries.api import serializers as shapes
from deliveries.api.messages import floor, service_of
from deliveries.api.problems import Problem
from deliveries.conf import limits
from deliveries.intake.fields import moment
from deliveries.models import Suppression

USAGE = """
SELECT count(*), (SELECT count(*) FROM pending WHERE service_id = %(service_id)s)
FROM acceptance WHERE service_id = %(service_id)s AND message_id >= %(floor)s
"""


class MeView(APIView):
    """`/me`."""

    @extend_schema(operation_id="me", responses=shapes.Me)
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
                    "batch_rows": bounds.batch_rows,
                    "batch_bytes": bounds.batch_bytes,
                    "stream_rows": bounds.stream_rows,
                },
                "usage": {"accepted_last_hour": accepted, "unfinished": waiting},
            }
        )


class PreviewView(APIView):
    """`/previews`."""

    @extend_schema(
        operation_id="preview", request=shapes.MessageIn, responses={200: shapes.MessageOut, 422: shapes.ProblemOut}
    )
    def post(self, request: Request) -> Response:
        """What a message would say, and which account would carry it. Nothing is stored."""
        try:
            checked = intake.draft(service_of(request), request.data)
        except intake.InvalidMessage as error:
            raise Problem(422, "invalid_message", f"It could not be sent: {error}.", error.errors) from error
        return Response(
            {
                "channel": checked.channel,
                "to": checked.to,
                "recipient": checked.recipient,
                "account": checked.account.name,
                "provider": checked.account.provider,
                "expires_at": checked.expires_at,
                **checked.content,
            }
        )


class SuppressionsView(APIView):
    """`/suppressions`."""

    @extend_schema(operation_id="list_suppressions", responses=shapes.SuppressionShape(many=True))
    def get(self, request: Request) -> Response:
        """The newest thousand of the service's own list."""
        own = Suppression.objects.filter(service=service_of(request)).order_by("-pk")[:1000]
        return Response(
            [{"channel": s.channel, "to": s.recipient, "reason": s.reason, "created_at": s.created_at} for s in own]
        )

    @extend_schema(
        operation_id="suppress",
        request=shapes.SuppressionShape,
        responses={201: shapes.SuppressionShape, 422: shapes.ProblemOut},
    )
    def post(self, request: Request) -> Response:
        """Never write to this recipient on this channel."""
        channel, recipient = _whom(request.data)
        service = service_of(request)
        given: Any = request.data
        reason = str(given.get("reason") or "asked by the service")
        acts.suppress(channel, recipient, service_id=service.pk, actor=f"service:{service.name}", reason=reason)
        return Response({"channel": channel, "to": recipient, "reason": reason}, status=201)

    @extend_schema(
        operation_id="unsuppress",
        parameters=[OpenApiParameter("channel", str), OpenApiParameter("to", str)],
        responses={204: None, 404: shapes.ProblemOut},
    )
    def delete(self, request: Request) -> Response:
        """Take the recipient off the list."""
        channel, recipient = _whom(request.query_params or request.data)
        service = service_of(request)
        if not acts.unsuppress(channel, recipient, service_id=service.pk, actor=f"service:{service.name}"):
            raise Problem(404, "not_found", "This recipient is not on the service's list for this channel.")
        return Response(status=204)


def _whom(given: Any) -> tuple[str, str]:
    channel, to = str(given.get("channel") or ""), str(given.get("to") or "")
    if channel not in MEDIA:
        raise Problem(
            422, "invalid_suppression", f"channel takes {', '.join(MEDIA)}.", {"channel": ["is not a channel"]}
        )
    try:
        return channel, MEDIA[channel].normalise(to)
    except InvalidRecipient as error:
        raise Problem(422, "invalid_suppression", f"to {error}.", {"to": [str(error)]}) from error


class SummaryView(APIView):
    """`/reports/summary`."""

    @extend_schema(
        operation_id="summary",
        parameters=[OpenApiParameter(name, str) for name in ("since", "until", "group_by")],
        responses={200: {"type": "object", "additionalProperties": True}, 422: shapes.ProblemOut},
    )
    def get(self, request: Request) -> Response:
        """Counts, rates and latency percentiles, of the last day unless told otherwise."""
        query = request.query_params
        group_by = query.get("group_by", "channel")
        if group_by not in reports.GROUPS:
            raise Problem(
                422,
                "invalid_filter",
                f"group_by takes {', '.join(reports.GROUPS)}.",
                {"group_by": ["is not one of them"]},
            )
        try:
            until = moment(query["until"]) if query.get("until") else datetime.now(UTC) + timedelta(minutes=1)
            since = moment(query["since"]) if query.get("since") else until - timedelta(days=1)
        except ValueError as error:
            raise Problem(422, "invalid_filter", f"since or until {error}.", {"since": [str(error)]}) from error
        return Response(reports.summary(service_of(request).pk, floor(since), floor(until), group_by))
