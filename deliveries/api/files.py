"""Files: sent once by a service, named by its messages; and shown to vendors, who show a signed URL instead of a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message as Headers
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import quote

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent, TooManyFilesSent
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError
from django.views import View
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import files
from deliveries.api import service_serializers as shapes
from deliveries.api.bodies import bytes_of, declared_bytes, ended_after
from deliveries.api.messages import service_of
from deliveries.api.problems import Problem, respond
from deliveries.api.serializers import answers
from deliveries.conf import limits
from deliveries.intake.attachments import file_name, media_type

MULTIPART = "multipart/form-data"
#: Headers of the parts and other fields of a form.
_FRAME_BYTES = 64_000
#: Each holds its file in memory, once as it came and once as the database takes it.
_AT_ONCE = 4
#: A slow sender holds one of the threads that take messages in: 25 MB at 4 Mbit/s.
_SECONDS = 50.0
_busy = BoundedSemaphore(_AT_ONCE)
_NAMED = OpenApiParameter("name", str, description="The file's name, where the body is the file itself.")


class Anything(BaseParser):
    """Names the media types for OpenAPI; the view reads the body itself."""

    media_type = "*/*"


class FilesView(APIView):
    """`/files`."""

    parser_classes = [Anything]

    @extend_schema(
        operation_id="upload",
        parameters=[_NAMED],
        request={MULTIPART: shapes.FileIn, "application/octet-stream": OpenApiTypes.BINARY},
        responses=answers({201: shapes.FileOut}, 400, 411, 413, 422, 429),
    )
    def post(self, request: Request) -> Response:
        """Keep a file for messages to carry: `attachments: [{"id": ...}]`. The same file again has the same id."""
        service = service_of(request)
        with _one_of_few():
            with ended_after(request._request.META, _SECONDS):
                name, kind, content = _form(request) if _is_form(request) else _raw(request)
            if not content:
                raise _refused("file", "is empty")
            file_id, digest = files.keep(service.pk, content, name, kind)
        kept = {"id": file_id, "sha256": digest, "size": len(content), "name": name, "content_type": kind}
        return Response(kept, status=201)


class FileView(View):
    """`/files/{token}/{name}`: no key, a URL that was signed here."""

    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, token: str, name: str) -> HttpResponseBase:
        """The file, always as one to save: whatever a service uploaded, nothing of it runs under this host's name."""
        found = files.read(token)
        if found is None:
            return respond(request, Problem(404, "not_found", "This URL is none of ours, or was valid a while ago."))
        response = HttpResponse(found.content, content_type=found.content_type)
        response["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(found.name, safe='')}"
        response["Content-Security-Policy"] = "sandbox; default-src 'none'"
        response["X-Content-Type-Options"] = "nosniff"
        response["Cache-Control"] = "private, max-age=3600"
        return response


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _busy.acquire(blocking=False):
        raise Problem(429, "busy", "Other files are being taken in. Nothing was stored; send it again in a moment.")
    try:
        yield
    finally:
        _busy.release()


def _is_form(request: Request) -> bool:
    return (request.content_type or "").partition(";")[0].strip().lower() == MULTIPART


def _raw(request: Request) -> tuple[str, str, bytes]:
    """The body is the file; its name stands in the query, or in Content-Disposition."""
    given = request.query_params.get("name") or _disposed(request.headers.get("Content-Disposition", ""))
    kind = _checked("content_type", media_type, request.content_type or "application/octet-stream")
    name = _checked("name", file_name, given or "file")
    return name, kind, bytes_of(request, limits().file_bytes)


def _form(request: Request) -> tuple[str, str, bytes]:
    """The part ``file`` of a form."""
    plain = request._request
    if not plain.headers.get("Content-Length"):
        raise Problem(
            411, "length_required", "A form needs a Content-Length. Send one, or the file itself as the body."
        )
    if declared_bytes(plain) > limits().file_bytes + _FRAME_BYTES:
        bytes_of(request, limits().file_bytes)  # reads it to its end and refuses it
    try:
        found = plain.FILES.getlist("file")
    except (MultiPartParserError, UnreadablePostError, SuspiciousOperation) as error:
        raise _unreadable(error) from error
    if len(found) != 1:
        raise _refused("file", f"must be one part of the form named file; {len(found)} are there")
    [part] = found
    if (part.size or 0) > limits().file_bytes:
        raise _refused("file", f"has {part.size or 0:,} bytes; at most {limits().file_bytes:,} are taken")
    kind = _checked("content_type", media_type, part.content_type or "application/octet-stream")
    return _checked("name", file_name, part.name or "file"), kind, part.read()


def _unreadable(error: Exception) -> Problem:
    if isinstance(error, (TooManyFieldsSent, TooManyFilesSent, RequestDataTooBig)):
        return Problem(413, "too_large", "The form has too much beside its file. Nothing was stored.")
    return Problem(400, "malformed", "The body is no complete form. Nothing was stored; send it again.")


def _disposed(header: str) -> str:
    """The file name in a Content-Disposition (RFC 6266); empty where there is none."""
    if not re.search(r"filename\*?=", header):
        return ""
    headers = Headers()
    headers["Content-Disposition"] = header
    return headers.get_filename() or ""


def _checked(name: str, rule: Callable[[Any], str], value: str) -> str:
    try:
        return rule(value)
    except ValueError as error:
        raise _refused(name, str(error)) from error


def _refused(name: str, reason: str) -> Problem:
    return Problem(422, "invalid_file", f"Nothing was stored: the file {reason}.", {name: [reason]})
