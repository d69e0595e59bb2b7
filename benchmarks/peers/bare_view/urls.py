"""The one view."""

from __future__ import annotations

import json

from django.http import HttpRequest, JsonResponse
from django.urls import path

from benchmarks.peers.bare_view.models import Sms


def messages(request: HttpRequest) -> JsonResponse:
    """Keep one SMS."""
    given = json.loads(request.body)
    sms = Sms.objects.create(to=given["to"], text=given["text"], reference=given["reference"])
    return JsonResponse({"id": sms.pk}, status=202)


urlpatterns = [path("messages", messages)]
