"""What tests need in the database: services with keys, accounts. Used by fixtures and by tests that need more of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from channels.registry import provider_class
from deliveries.delivery.accounts import owner
from deliveries.models import Account, ApiKey, Service
from deliveries.routing import table
from deliveries.secrets import mint_key, seal


@dataclass(frozen=True, slots=True)
class Caller:
    """A service and what it needs to call the API."""

    service: Service
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """The header that names the service."""
        return {"Authorization": f"Bearer {self.key}"}


def make_caller(name: str, *, test: bool = False) -> Caller:
    """A new service with one key."""
    service = Service.objects.create(name=name, test=test)
    minted = mint_key(kind="test" if test else "live")
    ApiKey.objects.create(service=service, key_id=minted.key_id, secret_sha256=minted.secret_sha256)
    return Caller(service, minted.text)


def make_account(
    channel: str = "sms",
    provider: str = "sandbox",
    name: str = "main",
    *,
    service: Service | None = None,
    options: dict[str, str] | None = None,
    secrets: dict[str, str] | None = None,
    **fields: Any,
) -> Account:
    """A new account, checked as `manage.py account create` checks it. Shared where no service is given."""
    provider_class(channel, provider).check({**(options or {}), **(secrets or {})})
    account = Account.objects.create(
        service=service, channel=channel, provider=provider, name=name, options=options or {}, **fields
    )
    account.secrets = seal(owner(account.public_id), secrets or {})
    account.save(update_fields=["secrets"])
    table.forget()
    return account
