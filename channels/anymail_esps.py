"""The e-mail service providers (ESPs) that anymail can write to: what each is asked for, and what its refusals mean.

Read by ``channels.anymail`` and ``channels.anymail_receipts``. A new ESP of anymail is one more row in ``ESPS``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from channels import anymail_codes
from channels.codes import Codes
from channels.rates import Rate

#: The signature of Svix, which anymail leaves to a library of its own.
SVIX = "svix"


@dataclass(frozen=True, slots=True)
class Esp:
    """One ESP. Paths (``code_at``, ``said_at``) lead into an answer's JSON; ``*`` is the first of a list or an object."""

    codes: Codes
    code_at: tuple[str, ...] = ()
    said_at: tuple[str, ...] = ("message",)
    #: Words that tell more than the code does: a pattern -> the code that counts, or "" for what its group holds.
    hints: Mapping[str, str] = field(default_factory=dict)
    #: What anymail calls our ``api_key``, and which of our options it knows too.
    key: str = "api_key"
    also: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    #: Where our message's id goes to come back with the receipts: anymail's metadata or tags; "": there is no such place.
    echo: str = "metadata"
    #: Does a mail keep a Message-ID of ours? The others refuse one, or put their own.
    keeps_message_id: bool = False
    #: The header of a request for the key by which the ESP drops a repeat.
    repeat_header: str = ""
    #: The header of a 429 that says how many seconds to wait, where it is not Retry-After.
    wait_header: str = ""
    rate: Rate | None = None
    #: anymail's view that reads the ESP's reports; what the view calls the key that they are signed with.
    view: str = ""
    signed_by: str = ""
    signing_option: str = "signing_key"
    #: Must a report be signed? Else an account without the key may do with a login.
    always_signs: bool = True
    #: Does the signature cover the address that the report went to?
    signs_address: bool = False
    #: Does the ESP try the address by a GET before it reports there?
    tries_address: bool = False

    def told(self, body: bytes) -> tuple[str, str]:
        """The code in an answer and the words for people, empty where it has none."""
        answer = _loaded(body)
        code, said = _first(answer, self.code_at), _first(answer, self.said_at)
        for pattern, meant in self.hints.items():
            found = re.search(pattern, said)
            if found:
                return meant or found[1], said
        return code, said


def _loaded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first(answer: Any, paths: tuple[str, ...]) -> str:
    found = (_at(answer, path) for path in paths)
    return next((str(value) for value in found if isinstance(value, str | int) and value), "")


def _at(found: Any, path: str) -> Any:
    for step in path.split("."):
        if step == "*":
            values = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else []
            found = values[0] if values else None
        else:
            found = found.get(step) if isinstance(found, dict) else None
    return found


#: By the word that anymail has for each, https://anymail.dev/en/stable/esps/. Amazon SES needs boto3, many times the size of all
#: this, and anymail has given up SendGrid: both take mail by SMTP.
ESPS: Mapping[str, Esp] = {
    "brevo": Esp(
        anymail_codes.BREVO,
        code_at=("code",),
        hints={r"(?i)email is not valid in to\b": "invalid_to"},
        wait_header="x-sib-ratelimit-reset",
        view="BrevoTrackingWebhookView",
    ),
    "mailersend": Esp(
        anymail_codes.MAILERSEND,
        code_at=("warnings.*.recipients.*.reasons.*",),
        said_at=("message", "warnings.*.warning"),
        hints={r"#(MS[0-9]{5})": ""},
        key="api_token",
        echo="",
        view="MailerSendTrackingWebhookView",
        signed_by="signing_secret",
    ),
    "mailgun": Esp(
        anymail_codes.MAILGUN,
        hints={r"(?i)\bto\b\W+parameter is not a valid address": "invalid_to", r"(?i)\bsandbox\b": "sandbox"},
        also=("sender_domain",),
        keeps_message_id=True,
        view="MailgunTrackingWebhookView",
        signed_by="webhook_signing_key",
    ),
    "mailjet": Esp(
        anymail_codes.MAILJET,
        code_at=("Messages.*.Errors.*.ErrorCode", "ErrorCode"),
        said_at=("Messages.*.Errors.*.ErrorMessage", "ErrorMessage"),
        also=("secret_key",),
        needs=("secret_key",),
        view="MailjetTrackingWebhookView",
    ),
    "mailtrap": Esp(
        anymail_codes.MAILTRAP,
        said_at=("errors.*", "error"),
        key="api_token",
        view="MailtrapTrackingWebhookView",
        signed_by="tracking_secret",
        always_signs=False,
    ),
    "mandrill": Esp(
        anymail_codes.MANDRILL,
        code_at=("name", "*.reject_reason"),
        said_at=("message", "*.status"),
        keeps_message_id=True,
        view="MandrillCombinedWebhookView",
        signed_by="webhook_key",
        signs_address=True,
    ),
    "postal": Esp(
        anymail_codes.POSTAL,
        code_at=("data.code", "status"),
        said_at=("data.message",),
        needs=("base_url",),
        echo="tags",
        view="PostalTrackingWebhookView",
        signed_by="webhook_key",
    ),
    "postmark": Esp(
        anymail_codes.POSTMARK,
        code_at=("ErrorCode",),
        said_at=("Message",),
        hints={r"(?i)^(?:invalid|error parsing) 'to'": "invalid_to"},
        key="server_token",
        keeps_message_id=True,
        view="PostmarkTrackingWebhookView",
    ),
    "resend": Esp(
        anymail_codes.RESEND,
        code_at=("name",),
        hints={r"(?i)\bAPI key is invalid": "invalid_api_key"},
        repeat_header="Idempotency-Key",
        rate=Rate(2),
        view="ResendTrackingWebhookView",
        signed_by=SVIX,
        always_signs=False,
    ),
    "scaleway": Esp(
        anymail_codes.SCALEWAY, code_at=("type",), key="secret_key", also=("project_id",), needs=("project_id",)
    ),
    "sparkpost": Esp(
        anymail_codes.SPARKPOST,
        code_at=("errors.*.code",),
        said_at=("errors.*.description", "errors.*.message"),
        hints={r"(?i)\brecipient address suppressed\b": "suppressed"},
        view="SparkPostTrackingWebhookView",
    ),
    "unisender_go": Esp(
        anymail_codes.UNISENDER_GO,
        code_at=("failed_emails.*", "code"),
        needs=("base_url",),
        view="UnisenderGoTrackingWebhookView",
        signed_by="api_key",
        signing_option="api_key",
        tries_address=True,
    ),
}
