"""The URLs of the API, of receipts and of health."""

from __future__ import annotations

from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView

from deliveries.api import batches, files, health, inbound, messages, service, unsubscribe

_OPEN: dict[str, list[type]] = {"authentication_classes": [], "permission_classes": []}

urlpatterns = [
    path("api/v1/messages", messages.MessagesView.as_view(), name="messages"),
    path("api/v1/messages/<uuid:message_id>", messages.MessageView.as_view(), name="message"),
    path("api/v1/messages/<uuid:message_id>/cancel", messages.CancelView.as_view(), name="cancel"),
    path("api/v1/messages/<uuid:message_id>/redeliver", messages.RedeliverView.as_view(), name="redeliver"),
    path("api/v1/batches", batches.BatchesView.as_view(), name="batches"),
    path("api/v1/batches/<uuid:batch_id>", batches.BatchView.as_view(), name="batch"),
    path("api/v1/files", files.FilesView.as_view(), name="files"),
    path("api/v1/previews", service.PreviewView.as_view(), name="previews"),
    path("api/v1/suppressions", service.SuppressionsView.as_view(), name="suppressions"),
    path("api/v1/me", service.MeView.as_view(), name="me"),
    path("api/v1/reports/summary", service.SummaryView.as_view(), name="summary"),
    path("api/schema", SpectacularAPIView.as_view(**_OPEN), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema", **_OPEN), name="docs"),
    path("api/redoc", SpectacularRedocView.as_view(url_name="schema", **_OPEN), name="redoc"),
    path("receipts/<uuid:public_id>", csrf_exempt(inbound.ReceiptsView.as_view()), name="receipts"),
    path("files/<str:token>/<str:name>", files.FileView.as_view(), name="file"),
    path("unsubscribe/<str:token>", csrf_exempt(unsubscribe.UnsubscribeView.as_view()), name="unsubscribe"),
    path("health/live", health.live, name="live"),
    path("health/ready", health.ready, name="ready"),
    path("metrics", health.metrics, name="metrics"),
]
