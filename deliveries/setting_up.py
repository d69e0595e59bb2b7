"""Setting up what messages need: accounts, API keys, callback endpoints, templates. Every change is audited.

Called by the commands and the admin, so that both check the same and leave the same behind.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max
from django.db.models.functions import Now

from channels.base import InvalidOption
from channels.media import MEDIA
from channels.registry import provider_class
from chaski.vocabulary import Status
from deliveries.acts import audit
from deliveries.callbacks import REPLY
from deliveries.delivery.accounts import owner
from deliveries.intake.templates import TemplateProblem, refuse_tags
from deliveries.models import Account, ApiKey, Endpoint, Service, Template
from deliveries.models.accounts import InDoubtPolicy
from deliveries.models.services import OrderThen
from deliveries.secrets import Unsealable, mint_key, seal, unseal

#: The account that signs a service's callbacks.
CALLBACKS = "callbacks"


class NameTaken(ValueError):
    """Another account has the name; the text says whose."""


class UnknownEvent(ValueError):
    """A word that is no event; the text lists those that are."""


def configure(account: Account, given: Mapping[str, str]) -> None:
    """Check ``given`` by the rules of the account's provider and put it on ``account``, secrets sealed. Saves nothing.

    ``given`` holds options and secrets together; a secret is a secret however it was given. Raises
    ``UnknownProvider`` and ``InvalidOption``.
    """
    cls = provider_class(account.channel, account.provider)
    cls.check(given)
    if account.in_doubt_policy == InDoubtPolicy.RECONCILE and not cls.reconciles:
        raise InvalidOption(
            "in_doubt_policy", f"{cls.name} cannot be asked whether it has a message; choose retry or hold"
        )
    hidden = {option.name for option in cls.options if option.secret}
    account.options = {name: value for name, value in given.items() if name not in hidden}
    account.secrets = seal(owner(account.public_id), {name: value for name, value in given.items() if name in hidden})


def create_account(account: Account, given: Mapping[str, str], *, actor: str) -> None:
    """Save a new ``account`` with its options and secrets.

    Raises what ``configure`` raises, ``NameTaken`` and ``ValidationError``.
    """
    configure(account, given)
    if Account.objects.filter(service=account.service, name=account.name).exists():
        whose = f"service {account.service.name}" if account.service else "all services"
        raise NameTaken(f"there is an account {account.name!r} of {whose} already; choose another name")
    account.full_clean()
    with transaction.atomic():
        account.save()
        audit(actor, "account_create", f"account:{account.pk}")


def add_key(service: Service, *, actor: str, expires_at: datetime | None = None) -> str:
    """A further API key of ``service``, until ``expires_at`` (aware UTC): its text, which nobody can read again."""
    minted = mint_key(kind="test" if service.test else "live")
    with transaction.atomic():
        ApiKey.objects.create(
            service=service, key_id=minted.key_id, secret_sha256=minted.secret_sha256, expires_at=expires_at
        )
        audit(actor, "key_create", f"service:{service.pk}")
    return minted.text


def set_order(service: Service, wait: timedelta | None, then: OrderThen, *, actor: str) -> None:
    """What becomes of those behind a blocked head of ``service``: ``wait`` for it (None: until it ends), then ``then``.

    Raises ``ValidationError``. Relays know it at their next sweep.
    """
    service.order_wait_seconds = None if wait is None else int(wait.total_seconds())
    service.order_then = then
    service.full_clean()
    with transaction.atomic():
        service.save(update_fields=["order_wait_seconds", "order_then"])
        detail = {"order_wait_seconds": service.order_wait_seconds, "order_then": str(then)}
        audit(actor, "service_order", f"service:{service.pk}", detail=detail)


def revoke_key(key_id: str, *, actor: str, reason: str = "") -> bool:
    """End an API key; False when there is no active one of that id. Within two seconds no process takes it any more."""
    with transaction.atomic():
        found = ApiKey.objects.filter(key_id=key_id, revoked_at=None).update(revoked_at=Now())
        if found:
            audit(actor, "key_revoke", f"key:{key_id}", reason)
    return bool(found)


def set_endpoint(service: Service, url: str, events: Sequence[str], *, base_url: str = "", actor: str) -> str:
    """Tell ``service`` its events at ``url``; the new signing secret (Standard Webhooks), which is shown once.

    ``events`` empty: all of them. ``base_url`` is an egress host that the requests go through. The secret until now signs
    too until the next call, so that receivers can move to the new one. Raises ``InvalidRecipient`` for a URL that
    callbacks may not reach, ``UnknownEvent``, and ``NameTaken`` where the account's name belongs to another channel.
    """
    known = [*map(str, Status), REPLY]
    unknown = sorted(set(events) - set(known))
    if unknown:
        raise UnknownEvent(f"there is no event {', '.join(unknown)}; there is {', '.join(known)}")
    normalised = MEDIA["webhook"].normalise(url)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    with transaction.atomic():
        account, _ = Account.objects.get_or_create(
            service=service, name=CALLBACKS, defaults={"channel": "webhook", "provider": "webhook", "priority": 1000}
        )
        if account.channel != "webhook":
            raise NameTaken(f"{service.name} has an account {CALLBACKS!r} on {account.channel}; it must be renamed")
        account.options = {"base_url": base_url} if base_url else {}
        account.secrets = seal(owner(account.public_id), {"secret": secret, **_previous(account)})
        account.save()
        Endpoint.objects.update_or_create(
            service=service,
            defaults={"url": normalised, "events": list(events), "account": account, "active": True},
        )
        # By the clock that stamps messages: the ledger asks which of them came after this.
        Endpoint.objects.filter(service=service).update(updated_at=Now())
        audit(actor, "endpoint_set", f"service:{service.pk}")
    return secret


def _previous(account: Account) -> dict[str, str]:
    try:
        before = unseal(owner(account.public_id), bytes(account.secrets)).get("secret")
    except Unsealable:
        return {}
    return {"previous_secret": before} if before else {}


def end_endpoint(service: Service, *, actor: str) -> bool:
    """Tell ``service`` nothing any more; False when it was told nothing."""
    with transaction.atomic():
        changed = Endpoint.objects.filter(service=service, active=True).update(active=False)
        audit(actor, "endpoint_off", f"service:{service.pk}")
    return bool(changed)


def put_template(template: Template, *, actor: str) -> None:
    """Save ``template`` as the next version of its name, channel and language.

    Raises ``TemplateProblem`` and ``ValidationError``.
    """
    if not (template.text or template.html):
        raise TemplateProblem("text", "or html must be given: both are empty")
    for part in ("subject", "text", "html"):
        refuse_tags(part, getattr(template, part))
    with transaction.atomic():
        # The lock makes two puts at once two versions.
        Service.objects.select_for_update().get(pk=template.service_id)
        same = Template.objects.filter(
            service=template.service_id, name=template.name, channel=template.channel, language=template.language
        )
        template.version = (same.aggregate(top=Max("version"))["top"] or 0) + 1
        template.full_clean()
        template.save()
        audit(actor, "template_put", f"template:{template.pk}")
