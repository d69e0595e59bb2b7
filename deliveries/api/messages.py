"""One message and lists of messages: accept, read, cancel, redeliver."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import acts, intake, reading
from deliveries.api import serializers as shapes
from deliveries.api.bodies import json_of
from deliveries.api.filters import PARAMETERS, filters_of
from deliveries.api.presentation import shown, shown_all, shown_fresh
from deliveries.api.problems import Problem
from deliveries.conf import limits
from deliveries.intake.fields import KEY_LIMIT, text_of
from deliveries.models import Message, Service
from deliveries.trace import trace

_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="1 to 255 characters. The same key and body give the same message back, for at least 72 hours.",
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


class MessagesView(APIView):
    """`/messages`."""

    @extend_schema(
        operation_id="send",
        request=shapes.MessageIn,
        parameters=[_KEY],
        responses=shapes.answers({202: shapes.MessageOut, 200: shapes.MessageOut}, 400, 409, 413, 415, 422),
    )
    def post(self, request: Request) -> Response:
        """Accept one message: 202 once it is committed, 200 with the first message on a repeat."""
        given = json_of(request, limits().message_bytes)
        key, request_id = _idempotency_key(request), getattr(request, "request_id", "")
        try:
            checked = intake.draft(service_of(request), given, key=key, request_id=request_id)
        except intake.InvalidMessage as error:
            raise Problem(422, "invalid_message", f"Nothing was stored: {error}.", error.errors) from error
        answer = intake.accept_one(checked)
        if answer.conflict is not None:
            raise _conflict(answer)
        if answer.place is not None:
            return Response(shown_fresh(checked, answer.place), status=202)
        return Response(shown(Message.objects.get(pk=answer.id)), status=200)

    @extend_schema(
        operation_id="list_messages",
        parameters=PARAMETERS,
        responses=shapes.answers({200: shapes.MessagePage}, 422),
    )
    def get(self, request: Request) -> Response:
        """The newest messages first, those of the last seven days unless told otherwise."""
        filters = filters_of(service_of(request), request.query_params)
        try:
            found = reading.page(filters)
        except reading.NoIndex as error:
            detail = f"The filter {error.field} {error.reason}."
            raise Problem(422, "no_index", detail, {error.field: [error.reason]}) from error
        more = len(found) == filters.limit
        return Response({"results": shown_all(found), "next": str(found[-1].pk) if more else None})


def _idempotency_key(request: Request) -> str:
    try:
        return text_of(KEY_LIMIT, lines=False)(request.headers.get("Idempotency-Key", ""))
    except ValueError as error:
        raise Problem(422, "invalid_message", f"Idempotency-Key {error}.", {"Idempotency-Key": [str(error)]}) from error


def _conflict(answer: intake.Accepted) -> Problem:
    conflict = answer.conflict
    if isinstance(conflict, intake.IdempotencyConflict):
        return Problem(
            422,
            "idempotency_conflict",
            f"This key was used for message {answer.id}, whose body was another. Use a new key for a new message.",
        )
    if isinstance(conflict, intake.IdTaken):
        return Problem(409, "id_taken", f"Nothing was stored: id {conflict}.", {"id": [str(conflict)]})
    return Problem(422, "invalid_message", f"Nothing was stored: {conflict}.", {"expires_at": ["has passed"]})


class MessageView(APIView):
    """`/messages/{id}`."""

    @extend_schema(operation_id="get_message", responses=shapes.answers({200: shapes.MessageDetail}, 404))
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
        operation_id="cancel_message", request=None, responses=shapes.answers({200: shapes.MessageOut}, 404, 409)
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
        operation_id="redeliver_message", request=None, responses=shapes.answers({200: shapes.MessageOut}, 404, 409)
    )
    def post(self, request: Request, message_id: UUID) -> Response:
        """Send a failed, undelivered or expired message again."""
        message = own(request, message_id)
        try:
            acts.redeliver(message, actor=f"service:{service_of(request).name}")
        except acts.NotRedeliverable as error:
            raise Problem(409, "not_redeliverable", f"The message cannot be redelivered: {error}.") from error
        return Response(shown(own(request, message_id)))
