"""`manage.py smpp`: which accounts the gateway gets, and what it says where it cannot start."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from structlog.testing import capture_logs

from channels.smpp import Smpp
from channels.smpp_gateway.exchange import account_key
from deliveries.delivery.accounts import owner
from deliveries.management import smpp_accounts
from deliveries.management.smpp_accounts import Reader
from deliveries.models import Account
from deliveries.secrets import seal, unseal
from tests.commands.shell import refused, run
from tests.factories import make_account

SECRETS = {"password": "s3cret", "gateway_secret": "shared by gateway and Chaski"}
OPTIONS = {"host": "smsc.example", "system_id": "shop", "from": "Shop"}


def carrier(name: str, **options: str) -> Account:
    return make_account("sms", "smpp", name, options={**OPTIONS, **options}, secrets=SECRETS)


@pytest.fixture(autouse=True)
def _one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's transaction lives in it."""
    monkeypatch.setattr(smpp_accounts, "close_old_connections", lambda: None)


@pytest.mark.django_db
def test_the_gateway_gets_the_accounts_that_workers_name_to_it() -> None:
    account = carrier("main")
    make_account("sms", "sandbox", "other")
    (found,) = Reader()() or []
    checked = Smpp.check({**account.options, **unseal(owner(account.public_id), bytes(account.secrets))})
    url = f"{settings.CHASKI_PUBLIC_URL}/receipts/{account.public_id}"
    assert (found.id, found.key, found.receipts_url) == (account.pk, account_key(checked, url), url)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "spoiled", [{"secrets": seal("somebody else", SECRETS)}, {"options": ["by hand"]}], ids=["secrets", "options"]
)
def test_an_account_that_is_set_up_wrongly_is_told_once_and_keeps_no_other_from_being_bound(
    spoiled: dict[str, Any],
) -> None:
    wrong, right = carrier("wrong"), carrier("right")
    Account.objects.filter(pk=wrong.pk).update(**spoiled)
    reader = Reader()
    with capture_logs() as logs:
        for _ in range(2):
            assert [found.id for found in reader() or []] == [right.pk]
    assert [(line["event"], line["account"]) for line in logs] == [("account_unusable", wrong.pk)]


@pytest.mark.django_db
def test_a_held_database_binds_nothing_for_it_may_be_a_copy() -> None:
    carrier("main")
    reader = Reader()
    assert reader()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE lineage SET held_at = chaski_now(), held_reason = 'restored'")
    assert reader() == []


@pytest.mark.django_db
def test_a_database_that_is_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(Account.objects, "filter", away)
    assert Reader()() is None


@pytest.mark.django_db
def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(run("smpp", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"), "cannot start", "--listen")


@pytest.mark.parametrize("address", ["8377", "127.0.0.1:", "127.0.0.1:99999", ":8377"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    assert run("smpp", "--listen", address).code == 2
