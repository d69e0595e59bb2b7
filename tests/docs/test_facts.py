"""Numbers and names that the documents state by hand, compared with the code."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.conf import settings

from channels.http import HttpResponse
from channels.media import MEDIA
from channels.registry import providers
from channels.webhook import _refusal
from chaski.vocabulary import FINAL
from config import processes
from deliveries import callbacks, maintenance
from deliveries.api.health import metrics
from deliveries.api.serializers import BatchRow
from deliveries.intake.fields import FIELDS
from deliveries.models.accounts import InDoubtPolicy
from deliveries.reading import RECEIPT_WINDOW
from deliveries.retry import Policy, backoff
from deliveries.tasks import AUTORETRY
from tests.docs.texts import ROOT

ROW = re.compile(r"^\| `(?P<name>\w+)` \| `(?P<value>[^`]+)` \|", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_the_broker_page_states_the_settings_in_force() -> None:
    rows = {match["name"]: match["value"] for match in ROW.finditer(read("explanation/broker.md"))}
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    stated = {name: value for name, value in rows.items() if not name.isupper()}
    assert stated == {name: repr(value) for name, value in options.items()}
    for name in set(rows) - set(stated):
        assert rows[name] == repr(getattr(settings, name)), name


def test_the_schedule_of_retries_is_the_stated_one() -> None:
    policy = Policy()
    waits = [backoff(policy, n, lambda _low, _high: 1.0) for n in range(1, policy.max_tries)]
    assert (policy.base_seconds, policy.factor, policy.cap_seconds, policy.jitter) == (2.0, 2.0, 3600.0, 0.2)
    assert round(sum(waits) / 3600) == 89
    assert "about 89 hours" in read("explanation/retries.md")
    assert all(medium.expires_after < timedelta(hours=89) for medium in MEDIA.values())
    assert (AUTORETRY["retry_backoff_max"], AUTORETRY["max_retries"]) == (30, 5)
    assert "capped at 30 s, at most 5 times" in read("explanation/retries.md")


def test_every_in_doubt_policy_is_explained_and_only_retry_repeats() -> None:
    page = read("explanation/retries.md")
    for policy in InDoubtPolicy.values:
        assert f"| `{policy}`" in page


@pytest.mark.parametrize(
    ("status", "error_class"),
    [(500, "transient"), (429, "throttled"), (401, "throttled"), (404, "throttled"), (400, "content_refused")],
)
def test_what_an_endpoint_answers_means_what_the_callbacks_page_says(status: int, error_class: str) -> None:
    assert _refusal(HttpResponse(status, {}, b"")).error_class == error_class


def test_the_callbacks_page_states_the_bounds() -> None:
    page = read("how-to/receive-callbacks.md")
    assert callbacks.PER_REQUEST == 50
    assert "up to fifty" in page
    webhook = providers()["webhook", "webhook"]
    assert f"within {webhook.call_seconds:g} seconds" in page


def test_receipts_may_come_for_as_long_as_the_glossary_says() -> None:
    assert timedelta(hours=72) == RECEIPT_WINDOW
    assert "after 72 hours" in read("glossary.md")
    words = read("glossary.md").partition("`final` is true for ")[2].partition(", and for")[0]
    assert set(re.findall(r"`(\w+)`", words)) == {str(status) for status in FINAL}


def test_idempotency_keys_are_kept_for_as_long_as_documents_say() -> None:
    assert "interval '96 hours'" in maintenance.FORGET_KEYS
    assert "96 hours" in read("architecture.md")


@pytest.mark.django_db
def test_the_metrics_that_operators_are_told_to_watch_are_served() -> None:
    served = metrics(None).content.decode()  # type: ignore[arg-type,attr-defined]
    for name in set(re.findall(r"chaski_[a-z_]+(?=[`{])", read("how-to/operate.md"))):
        assert f"# TYPE {name} gauge" in served, name


def test_every_process_is_in_the_architecture() -> None:
    page = read("architecture.md").partition("## Processes")[2].partition("##")[0].lower()
    for process in processes.everything(processes.Ports(1, 2, 3, 4), heavy_workers=1):
        assert f"| {process.name.rstrip('12')} |" in page


def test_the_schema_names_every_field_that_intake_takes() -> None:
    assert set(BatchRow().fields) == set(FIELDS)
