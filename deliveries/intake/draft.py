"""From what a caller sent to a checked ``Draft``: every field is looked at, all problems are told at once.

Called by the API, the commands and the callbacks before ``accept``. Nothing is stored here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from channels.base import InvalidOption, InvalidRecipient, Outbound
from channels.media import MEDIA
from channels.registry import provider_class
from chaski.vocabulary import Lane
from deliveries.conf import limits
from deliveries.intake import attachments
from deliveries.intake.fields import FIELDS
from deliveries.intake.templates import TemplateProblem, render
from deliveries.models import Service
from deliveries.routing import AccountRef, NoAccount, table

Errors = dict[str, list[str]]
Checked = TypeVar("Checked")
_REQUIRED = ("channel", "to")
_LONGEST = timedelta(days=366)
#: A body of a megabyte can hold a hundred thousand wrong names; a few of them tell what is wrong.
_UNKNOWN_SHOWN = 5


class InvalidMessage(ValueError):
    """A message that cannot be taken: field -> what is wrong with it and how to mend it."""

    def __init__(self, errors: Errors) -> None:
        super().__init__("; ".join(f"{field} {' and '.join(reasons)}" for field, reasons in errors.items()))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that can be accepted as it is. Times are aware UTC."""

    id: UUID
    service_id: int
    account: AccountRef
    channel: str
    lane: Lane
    recipient: str
    to: str
    key: str
    #: Of what was asked for; empty without a key, as nobody compares it then.
    fingerprint: str
    content: dict[str, Any]
    options: dict[str, Any]
    metadata: dict[str, Any]
    tags: list[str]
    reference: str
    ordering_key: str
    send_at: datetime | None
    expires_at: datetime
    request_id: str = ""
    #: It goes through this account or not at all: it named it, or goes by no route.
    pinned: bool = False


def draft(service: Service, given: Any, *, key: str = "", account_id: int | None = None, request_id: str = "") -> Draft:
    """Check one message of ``service``. ``key`` is the idempotency key from outside the body.

    ``request_id`` names the caller's request in the logs. ``account_id`` is for what does not go by the service's routes:
    callbacks and test-sends.

    Raises ``InvalidMessage`` with every problem found, by field.
    """
    if not isinstance(given, Mapping):
        raise InvalidMessage({"message": ["must be a JSON object"]})
    checked, errors = _fields(given)
    if errors:
        raise InvalidMessage(errors)
    recipient = _collect(errors, lambda: _recipient(checked))
    account = _collect(errors, lambda: _account(service, checked, account_id))
    content = _collect(errors, lambda: _content(service, checked))
    times = _collect(errors, lambda: _times(checked))
    if recipient is None or account is None or content is None or times is None:
        raise InvalidMessage(errors)
    due, expires_at = times
    if "attachments" in checked:
        content["attachments"] = _attachments(service, checked, expires_at)
    message_id = checked.get("id") or uuid7()
    # An id alone is a promise not to be doubled too.
    key = key or checked.get("key", "") or (f"id:{checked['id']}" if "id" in checked else "")
    _offer_to_provider(account, checked, content, recipient)
    return Draft(
        id=message_id,
        service_id=service.pk,
        account=account,
        channel=checked["channel"],
        lane=checked.get("priority", Lane.NORMAL),
        recipient=recipient,
        to=checked["to"],
        key=key,
        fingerprint=fingerprint(given) if key else "",
        content=content,
        options=checked.get("options", {}),
        metadata=checked.get("metadata", {}),
        tags=checked.get("tags", []),
        reference=checked.get("reference", ""),
        ordering_key=checked.get("ordering_key", ""),
        send_at=due,
        expires_at=expires_at,
        request_id=request_id,
        pinned=account_id is not None or "account" in checked,
    )


def fingerprint(given: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what was asked for. The id and the key are left out: they name the request, they are not in it."""
    body = {name: value for name, value in given.items() if name not in ("id", "key") and value is not None}
    return sha256(json.dumps(body, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def _fields(given: Mapping[str, Any]) -> tuple[dict[str, Any], Errors]:
    checked: dict[str, Any] = {}
    errors: Errors = {}
    for name, value in given.items():
        rule = FIELDS.get(name)
        if rule is None or value is None:
            continue
        try:
            value = rule(value)
        except ValueError as error:
            errors[name] = [str(error)]
            continue
        if value not in ("", [], {}):  # said to be empty: the same as left out
            checked[name] = value
    for name in islice((name for name in given if name not in FIELDS), _UNKNOWN_SHOWN):
        errors[_printable(name)] = [f"is not a field of a message; the fields are {', '.join(FIELDS)}"]
    for name in _REQUIRED:
        if name not in checked and name not in errors:
            errors[name] = ["is required"]
    return checked, errors


def _printable(name: Any) -> str:
    return str(name)[:64].encode(errors="backslashreplace").decode()


def _collect(errors: Errors, check: Callable[[], Checked]) -> Checked | None:
    """What ``check`` gives, or None with its complaints added to ``errors``."""
    try:
        return check()
    except InvalidMessage as invalid:
        errors |= invalid.errors
        return None


def _recipient(checked: Mapping[str, Any]) -> str:
    try:
        return MEDIA[checked["channel"]].normalise(checked["to"])
    except InvalidRecipient as error:
        raise InvalidMessage({"to": [str(error)]}) from error


def _account(service: Service, checked: Mapping[str, Any], account_id: int | None) -> AccountRef:
    if account_id is not None:
        return table.get(account_id)
    try:
        return table.choose(service, checked["channel"], checked.get("account", ""))
    except NoAccount as error:
        raise InvalidMessage({error.field: [error.reason]}) from error


def _content(service: Service, checked: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: checked[name] for name in ("text", "subject", "html", "language") if checked.get(name)}
    if "template" in checked:
        clash = [name for name in ("text", "html") if name in content]
        if clash:
            raise InvalidMessage({name: ["is the template's to give; leave one of the two out"] for name in clash})
        content |= _rendered(service, checked)
    elif "context" in checked:
        raise InvalidMessage({"context": ["fills in a template, and none is named; give template, or leave it out"]})
    if sum(len(str(part).encode()) for part in content.values()) > limits().message_bytes:
        raise InvalidMessage({"message": [f"has more than {limits().message_bytes:,} bytes of content"]})
    return content


def _attachments(service: Service, checked: Mapping[str, Any], until: datetime) -> list[dict[str, Any]]:
    try:
        return attachments.kept(service.pk, checked["attachments"], until)
    except ValueError as error:
        raise InvalidMessage({"attachments": [str(error)]}) from error


def _rendered(service: Service, checked: Mapping[str, Any]) -> dict[str, Any]:
    name, language = checked["template"], checked.get("language", "")
    try:
        rendered = render(service, name, checked["channel"], language, checked.get("context", {}))
    except TemplateProblem as problem:
        raise InvalidMessage({problem.field: [problem.reason]}) from problem
    parts = {"subject": rendered.subject, "text": rendered.text, "html": rendered.html}
    for part, value in parts.items():
        try:
            FIELDS[part](value)
        except ValueError as error:
            raise InvalidMessage({"context": [f"makes a {part} that {error}"]}) from error
    return {
        **{part: value for part, value in parts.items() if value},
        "template": name,
        "template_version": rendered.version,
        "context": checked.get("context", {}),
    }


def _times(checked: Mapping[str, Any]) -> tuple[datetime | None, datetime]:
    now = datetime.now(UTC)
    send_at: datetime | None = checked.get("send_at")
    if send_at is not None and send_at > now + _LONGEST:
        raise InvalidMessage({"send_at": ["is more than a year away"]})
    begins = max(now, send_at or now)
    expires_at: datetime = checked.get("expires_at") or begins + MEDIA[checked["channel"]].expires_after
    if expires_at <= now:
        raise InvalidMessage({"expires_at": ["has passed; give a time to come, or leave it out"]})
    if expires_at <= begins:
        raise InvalidMessage({"expires_at": ["comes before send_at, so the message could never be sent"]})
    if expires_at > begins + _LONGEST:
        raise InvalidMessage({"expires_at": ["is more than a year away"]})
    return (send_at if send_at and send_at > now else None), expires_at


def _offer_to_provider(
    account: AccountRef, checked: Mapping[str, Any], content: Mapping[str, Any], recipient: str
) -> None:
    """Ask the provider's own rules, so that what it is known to refuse is refused at the door."""
    provider = provider_class(account.channel, account.provider)
    outbound = Outbound(
        message_id="",
        channel=account.channel,
        to=recipient,
        text=content.get("text", ""),
        subject=content.get("subject", ""),
        html=content.get("html", ""),
        options=checked.get("options", {}),
        metadata=checked.get("metadata", {}),
        attachments=attachments.of(content, attachments.unread) if "attachments" in content else (),
    )
    try:
        refused = provider.refuse(outbound)
    except InvalidOption as error:
        raise InvalidMessage({f"options.{error.name}": [error.reason]}) from error
    if refused:
        raise InvalidMessage({field: [reason] for field, reason in refused.items()})
