"""The one task: read the row, call the provider, save the row."""

from __future__ import annotations

import requests
from celery import shared_task
from django.conf import settings
from django.utils import timezone

from benchmarks.peers.naive.models import Sms

SID, TOKEN = "AC" + "0" * 32, "benchmark"


@shared_task(autoretry_for=(requests.RequestException,), retry_backoff=True, max_retries=5)
def send_sms(sms_id: int) -> str:
    """Send one SMS."""
    sms = Sms.objects.get(pk=sms_id)
    response = requests.post(
        f"{settings.PROVIDER_URL}/2010-04-01/Accounts/{SID}/Messages.json",
        data={
            "To": sms.to,
            "From": "+15005550006",
            "Body": sms.text,
            "StatusCallback": f"https://shop.example/status?message={sms.pk}",
        },
        auth=(SID, TOKEN),
        timeout=20,
    )
    response.raise_for_status()
    sms.status = "sent"
    sms.provider_id = response.json()["sid"]
    sms.sent_at = timezone.now()
    sms.save()
    return sms.provider_id
