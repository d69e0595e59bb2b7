"""The error codes of the e-mail service providers that anymail can write to, one table each.

Read by ``channels.anymail_esps``. What is not in a table is classed by the status of the answer, and shown.
"""

from __future__ import annotations

from channels.base import ContentRefused, Misconfigured, RecipientRefused, Throttled, Transient
from channels.codes import Code, Codes

_HOUR = 3600.0
#: A code of our own, for ESPs that say by words alone which address they do not take.
_INVALID_TO = {"invalid_to": "the ESP does not take the recipient for an address"}

BREVO = Codes(
    "https://developers.brevo.com/docs/how-it-works",
    {
        Throttled: {"too_many_requests": "the account sends faster than its limit"},
        RecipientRefused: _INVALID_TO,
        ContentRefused: {
            "invalid_parameter": "a field is not what Brevo takes",
            "missing_parameter": "a field is missing",
            "out_of_range": "a value is out of its range",
            "not_acceptable": "Brevo does not take this content",
        },
        Misconfigured: {
            "unauthorized": "the API key is wrong, or this machine's address is not one of those it may be used from",
            "not_enough_credits": "the account has no credits left",
            "permission_denied": "the account may not send",
            "account_under_validation": "Brevo has not approved the account yet",
        },
    },
)
MAILERSEND = Codes(
    "https://developers.mailersend.com/general.html#validation-errors",
    {
        RecipientRefused: {
            "hard_bounced": Code(RecipientRefused, "mail to it has bounced", suppress=True),
            "spam_complaint": Code(RecipientRefused, "the recipient has complained of spam", suppress=True),
            "unsubscribed": Code(RecipientRefused, "the recipient has unsubscribed", suppress=True),
            "blocklisted": "the recipient is on the account's blocklist",
        },
        Misconfigured: {
            "MS42207": "the sender's domain is not verified",
            "MS42225": "a trial account writes to a few recipients only",
        },
    },
)
MAILGUN = Codes(
    "https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages",
    {
        RecipientRefused: _INVALID_TO,
        Misconfigured: {"sandbox": "a sandbox domain writes to authorized recipients only"},
    },
)
MAILJET = Codes(
    "https://dev.mailjet.com/email/guides/send-api-v31/",
    {
        RecipientRefused: {"mj-0013": "Mailjet does not take the recipient for an address"},
        Misconfigured: {"send-0008": "the sender is not one that the account may use"},
    },
)
MAILTRAP = Codes("https://docs.mailtrap.io/developers/email-sending/transactional", {})
MANDRILL = Codes(
    "https://mailchimp.com/developer/transactional/api/messages/send-new-message/",
    {
        Transient: {
            "GeneralError": "Mandrill broke; it may have gone",
            "ServiceUnavailable": "Mandrill is down for maintenance",
        },
        RecipientRefused: {
            "hard-bounce": Code(RecipientRefused, "mail to it has bounced", suppress=True),
            "spam": Code(RecipientRefused, "the recipient has complained of spam", suppress=True),
            "unsub": Code(RecipientRefused, "the recipient has unsubscribed", suppress=True),
            "soft-bounce": "mail to it has bounced lately",
            "custom": "the recipient is on the account's denylist",
            "invalid": "Mandrill does not take the recipient for an address",
        },
        ContentRefused: {
            "ValidationError": "a field is not what Mandrill takes",
            "rule": "a rule of the account forbids it",
        },
        Misconfigured: {
            "Invalid_Key": "the API key is wrong",
            "PaymentRequired": "the account is not paid for this",
            "PoorReputation": "the account's reputation is too poor to send",
            "Unknown_Subaccount": "there is no such subaccount",
            "invalid-sender": "the sender is not one that may be used",
            "unsigned": "the sender's domain is not set up (SPF, DKIM)",
            "test-mode-limit": "the test key's messages are spent",
        },
    },
)
POSTAL = Codes(
    "https://apiv1.postalserver.io/controllers/send/message",
    {
        ContentRefused: {
            "parameter-error": "a field is not what Postal takes",
            "ValidationError": "a field is not what Postal takes",
            "NoContent": "it has neither text nor HTML",
            "NoRecipients": "it has no recipient",
        },
        Misconfigured: {
            "AccessDenied": "the API key is missing",
            "InvalidServerAPIKey": "the API key is wrong",
            "ServerSuspended": "the mail server is suspended",
            "FromAddressMissing": "there is no sender",
            "UnauthenticatedFromAddress": "the sender's domain is not one of this server's",
        },
    },
)
POSTMARK = Codes(
    "https://postmarkapp.com/developer/api/overview#error-codes",
    {
        Throttled: {
            "100": Code(Throttled, "Postmark is down for maintenance", wait=300),
            "429": "the account sends faster than its limit",
        },
        RecipientRefused: {
            **_INVALID_TO,
            "406": Code(RecipientRefused, "inactive: mail to it has bounced, or it complained of spam", suppress=True),
        },
        ContentRefused: {
            "300": "a field is not what Postmark takes",
            "402": "the JSON cannot be read",
            "403": "the JSON is not what Postmark takes",
            "409": "the request is not JSON",
            "410": "more messages than one request may hold",
            "411": "an attachment is of a kind that Postmark forbids",
        },
        Misconfigured: {
            "10": "the server token is wrong",
            "400": "there is no sender signature for this sender",
            "401": "the sender signature is not confirmed",
            "405": "the account may not send; its credit may be spent",
            "412": "Postmark has not approved the account yet",
            "413": "the account may not send",
        },
    },
)
RESEND = Codes(
    "https://resend.com/docs/api-reference/errors",
    {
        Throttled: {
            "rate_limit_exceeded": "the account sends faster than its limit",
            "daily_quota_exceeded": Code(Throttled, "the account's mails of this day are spent", wait=_HOUR),
        },
        Transient: {
            "concurrent_idempotent_requests": "the attempt before is still under way",
            "application_error": "Resend broke; it may have gone",
            "internal_server_error": "Resend broke; it may have gone",
        },
        ContentRefused: {
            "invalid_idempotent_request": "the attempt before had other content; has the account changed?",
            "invalid_idempotency_key": "the idempotency key is not what Resend takes",
            "invalid_parameter": "a field is not what Resend takes",
            "missing_required_field": "a field is missing",
            "security_error": "Resend takes the content for dangerous",
        },
        Misconfigured: {
            "missing_api_key": "the API key is missing",
            "invalid_api_key": "the API key is wrong",
            "restricted_api_key": "the API key may not be used for this",
            "invalid_from_address": "the sender is not one that may be used",
            "monthly_quota_exceeded": "the account's mails of this month are spent",
        },
    },
)
SCALEWAY = Codes(
    "https://www.scaleway.com/en/developers/api/transactional-email/",
    {
        Throttled: {"too_many_requests": "the account sends faster than its limit"},
        Transient: {"transient_state": "Scaleway is in the middle of a change"},
        ContentRefused: {"invalid_arguments": "a field is not what Scaleway takes"},
        Misconfigured: {
            "denied_authentication": "the secret key is wrong",
            "permissions_denied": "the key may not send for this project",
            "quotas_exceeded": "the project's mails are spent",
        },
    },
)
SPARKPOST = Codes(
    "https://support.sparkpost.com/docs/tech-resources/extended-error-codes",
    {
        Throttled: {
            "2101": Code(Throttled, "the account's mails of this hour are spent", wait=_HOUR / 4),
            "2102": Code(Throttled, "the account's mails of this day are spent", wait=_HOUR),
        },
        RecipientRefused: {
            "suppressed": Code(RecipientRefused, "the recipient is on the account's suppression list", suppress=True)
        },
        ContentRefused: {
            "1300": "a field is not what SparkPost takes",
            "1400": "a field is missing",
            "1902": "SparkPost would not make a mail of it",
        },
        Misconfigured: {
            "1100": "the API key may not send",
            "1303": "the API key is of another account",
            "2103": "the sandbox domain's mails are spent",
            "7001": "the sender's domain is not set up",
        },
    },
)
UNISENDER_GO = Codes(
    "https://godocs.unisender.ru/web-api-ref#email-send",
    {
        Transient: {"temporary_unavailable": "mail to it has failed lately"},
        RecipientRefused: {
            "unsubscribed": Code(RecipientRefused, "the recipient has unsubscribed", suppress=True),
            "permanent_unavailable": Code(RecipientRefused, "mail to it has bounced", suppress=True),
            "invalid": "Unisender does not take the recipient for an address",
        },
    },
)
