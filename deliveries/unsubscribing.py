"""Unsubscribing by one click (RFC 8058): the URL that a mail carries, and whose mail it was.

Called by the delivery engine (``url_of``) and by the page behind the URL (``message_of``).
"""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.core import signing

_SALT = "chaski.unsubscribe"


def url_of(message_id: UUID) -> str:
    """Where whoever got this message asks for no more of them. Valid for as long as the message is kept."""
    return f"{settings.CHASKI_PUBLIC_URL}/unsubscribe/{signing.Signer(salt=_SALT).sign_object([message_id.hex])}"


def message_of(token: str) -> UUID | None:
    """The message that ``url_of`` was asked for; None for a token that is not ours."""
    try:
        [given] = signing.Signer(salt=_SALT).unsign_object(token)
        return UUID(given)
    except (signing.BadSignature, ValueError, TypeError, AttributeError):
        return None
