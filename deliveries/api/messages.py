"""One message and lists of messages: accept, read, cancel, redeliver."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from channels.base import InvalidRecipient
from channels.media import MEDIA
from chaski.vocabulary import Status
from deliveries import acts, intake, reading
from deliveries.api import serializers as shapes
from deliveries.api.problems import Problem
from deliveries.conf import limits
from deliveries.intake.fields import KEY_LIMIT, moment, text_of
from deliveries.models import Message, Pending, Service
from deliveries.models.messages import Origin
from deliveries.trace import trace

DEFAULT_WINDOW = timedelta(days=7)
_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="The same key and body give the same message back."
)
_FILTERS = (
    "status",
    "channel",
    "to",
    "reference",
    "tag",
    "batch",
    "created_after",
    "created_before",
    "cursor",
    "limit",
)


def service_of(request: Request) -> Service:
    """The service whose key this is."""
    caller: Any = request.user
    service: Service = caller.service
    return service


def own(request: Request, message_id: UUID) -> Message:
    """The service's message. Another service's looks like none."""
    message = Message.objects.filter(pk=message_id, service=service_of(request)).first()
    if message is None:
        raise Problem(404, "not_found", "No message with this id belongs to this service.")
    return message


def shown(message: Message) -> dict[str, Any]:
    """One message as it is now."""
    now, pauses = reading.now_and_pauses()
    return shapes.present(message, Pending.objects.filter(pk=message.pk).first(), pauses, now)


def refuse_large(request: Request, limit: int) -> None:
    """A body over ``limit`` bytes is refused before it is parsed, whatever its Content-Length says."""
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not declared.isdigit() or int(declared) > limit or len(request.body) > limit:
        raise Problem(
            413,
            "too_large",
            f"The body is larger than {limit:,} bytes. Send large content as a file, or more requests.",
        )


class MessagesView(APIView):
    """`/messages`."""

    @extend_schema(
        operation_id="send",
        request=shapes.MessageIn,
        parameters=[_KEY],
        responses={
            202: shapes.MessageOut,
            200: shapes.MessageOut,
            401: shapes.ProblemOut,
            413: shapes.ProblemOut,
            422: shapes.ProblemOut,
            503: shapes.ProblemOut,
        },
    )
    def post(self, request: Request) -> Response:
        """Accept one message: 202 once it is committed, 200 with the first message on a repeat."""
        refuse_large(request, limits().message_bytes)
        key = _idempotency_key(request)
        try:
            checked = intake.draft(service_of(request), request.data, key=key)
        except intake.InvalidMessage as error:
            raise Problem(422, "invalid_message", f"Nothing was stored: {error}.", error.errors) from error
        answer = intake.accept([checked], origin=Origin.API, request_id=getattr(request, "request_id", ""))[0]
        if isinstance(answer.conflict, intake.IdTaken):
            raise Problem(
                409, "id_taken", "Another message has this id. Mint a new one.", {"id": [str(answer.conflict)]}
            )
        if answer.conflict is not None:
            raise Problem(
                422,
                "idempotency_conflict",
                f"This key was used for message {answer.id}, whose body was another. Use a new key for a new message.",
            )
        return Response(shown(Message.objects.get(pk=answer.id)), status=202 if answer.fresh else 200)

    @extend_schema(
        operation_id="list_messages",
        parameters=[OpenApiParameter(name, str) for name in _FILTERS],
        responses={200: shapes.MessagePage, 422: shapes.ProblemOut},
    )
    def get(self, request: Request) -> Response:
        """The newest messages first, those of the last seven days unless told otherwise."""
        filters = filters_of(service_of(request), request.query_params)
        try:
            found = reading.page(filters)
        except reading.NoIndex as error:
            raise Problem(
                422, "no_index", f"The filter {error.field} {error.reason}.", {error.field: [error.reason]}
            ) from error
        now, pauses = reading.now_and_pauses()
        pending = reading.pending_of(found)
        rows = [shapes.present(message, pending.get(message.pk), pauses, now) for message in found]
        return Response({"results": rows, "next": str(found[-1].pk) if len(found) == filters.limit else None})


def _idempotency_key(request: Request) -> str:
    try:
        return text_of(KEY_LIMIT, lines=False)(request.headers.get("Idempotency-Key", ""))
    except ValueError as error:
        raise Problem(422, "invalid_message", f"Idempotency-Key {error}.", {"Idempotency-Key": [str(error)]}) from error


def filters_of(service: Service, query: Mapping[str, str]) -> reading.Filters:
    """The query string as filters. Raises ``Problem`` naming the parameter."""
    unknown = sorted(set(query) - set(_FILTERS))
    if unknown:
        raise Problem(
            422,
            "unknown_filter",
            f"There is no filter {', '.join(unknown)}; there are {', '.join(_FILTERS)}.",
            {name: ["is not a filter"] for name in unknown},
        )
    since = _time(query, "created_after") or datetime.now(UTC) - DEFAULT_WINDOW
    until = _time(query, "created_before")
    channel = query.get("channel", "")
    return reading.Filters(
        service_id=service.pk,
        statuses=tuple(_words(query, "status", Status)),
        channels=tuple(_one_of(query, "channel", list(MEDIA))),
        recipient=_recipient(channel, query.get("to", "")),
        reference=query.get("reference", ""),
        tag=query.get("tag", ""),
        batch_id=_uuid(query, "batch"),
        since=floor(since),
        until=floor(until) if until else None,
        after=_uuid(query, "cursor"),
        limit=_limit(query),
    )


def floor(at: datetime) -> UUID:
    """The smallest UUIDv7 of a moment."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def _words(query: Mapping[str, str], name: str, kind: type[Status]) -> list[Status]:
    return [kind(word) for word in _one_of(query, name, [str(status) for status in kind])]


def _one_of(query: Mapping[str, str], name: str, known: list[str]) -> list[str]:
    words = [word for word in query.get(name, "").split(",") if word]
    if any(word not in known for word in words):
        raise Problem(422, "invalid_filter", f"{name} takes {', '.join(known)}.", {name: ["is not one of them"]})
    return words


def _recipient(channel: str, to: str) -> str:
    if not to:
        return ""
    for medium in [MEDIA[channel]] if channel in MEDIA else [MEDIA["sms"], MEDIA["email"]]:
        try:
            return medium.normalise(to)
        except InvalidRecipient:
            continue
    return to.strip()


def _time(query: Mapping[str, str], name: str) -> datetime | None:
    try:
        return moment(query[name]) if query.get(name) else None
    except ValueError as error:
        raise Problem(422, "invalid_filter", f"{name} {error}.", {name: [str(error)]}) from error


def _uuid(query: Mapping[str, str], name: str) -> UUID | None:
    try:
        return UUID(query[name]) if query.get(name) else None
    except ValueError as error:
        raise Problem(422, "invalid_filter", f"{name} is not a UUID.", {name: ["is not a UUID"]}) from error


def _limit(query: Mapping[str, str]) -> int:
    given = query.get("limit", "50")
    if not given.isdigit() or not 1 <= int(given) <= limits().page_rows:
        raise Problem(422, "invalid_filter", f"limit takes 1 to {limits().page_rows}.", {"limit": ["is out of range"]})
    return int(given)


class MessageView(APIView):
    """`/messages/{id}`."""

    @extend_schema(operation_id="get_message", responses={200: shapes.MessageDetail, 404: shapes.ProblemOut})
    def get(self, request: Request, message_id: UUID) -> Response:
        """The message with everything that happened to it."""
        message = own(request, message_id)
        entries = trace(message).entries
        lists = {
            f"{kind}s": [{"at": entry.at, **entry.data} for entry in entries if entry.kind == kind]
            for kind in ("attempt", "receipt", "event")
        }
        return Response({**shown(message), **lists})


class CancelView(APIView):
    """`/messages/{id}/cancel`."""

    @extend_schema(
        operation_id="cancel_message", request=None, responses={200: shapes.MessageOut, 409: shapes.ProblemOut}
    )
    def post(self, request: Request, message_id: UUID) -> Response:
        """Withdraw a message that still waits."""
        message = own(request, message_id)
        try:
            acts.cancel(message, actor=f"service:{service_of(request).name}")
        except acts.NotCancelable as error:
            raise Problem(409, "not_cancelable", f"The message cannot be canceled: {error}.") from error
        return Response(shown(own(request, message_id)))


class RedeliverView(APIView):
    """`/messages/{id}/redeliver`."""

    @extend_schema(
        operation_id="redeliver_message", request=None, responses={200: shapes.MessageOut, 409: shapes.ProblemOut}
    )
    def post(self, request: Request, message_id: UUID) -> Response:
        """Send a failed, undelivered or expired message again."""
        message = own(request, message_id)
        try:
            acts.redeliver(message, actor=f"service:{service_of(request).name}")
        except acts.NotRedeliverable as error:
            raise Problem(409, "not_redeliverable", f"The message cannot be redelivered: {error}.") from error
        return Response(shown(own(request, message_id)))
