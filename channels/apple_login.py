"""Apple's provider tokens: the same one in all workers, though they share nothing.

Used by the provider ``apns``. Apple wants one token to be used for at least 20 minutes and refuses it after 60, counted from the
time that it bears; who brings new ones more often is refused for a while (TooManyProviderTokenUpdates). Usually the workers would
share one through a store. Here each makes it by itself: the time in it is that of the current slot of 40 minutes, by the
database's clock, and the signature is deterministic (RFC 6979), so that all of them arrive at the same bytes. It is dated ten
minutes back: between 10 and 50 minutes old, it is good though the database's clock be wrong by ten minutes, either way.
https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.utils import base64url_encode

from channels.base import InvalidOption, Option

SLOT_SECONDS, BACK_SECONDS = 2400, 600
#: Of each number of a signature: RFC 7518, section 3.4.
_NUMBER_BYTES = 32
_ID = re.compile(r"[A-Z0-9]{10}")

OPTIONS = (
    Option("key", "the APNs key, the whole text of the file AuthKey_....p8", required=True, secret=True),
    Option("key_id", "the key's ID, ten letters and digits", required=True),
    Option("team_id", "the developer team's ID, ten letters and digits", required=True),
)


class Login:
    """What one account proves itself with: a key that Apple gave to a team, and which signs in its name.

    Raises ``InvalidOption``, which names the option and shows nothing of the key.
    """

    def __init__(self, key: str, key_id: str, team_id: str) -> None:
        for name, value in (("key_id", key_id), ("team_id", team_id)):
            if not _ID.fullmatch(value):
                raise InvalidOption(name, "must be ten capital letters and digits, as Apple's developer site shows it")
        self._key, self._key_id, self._team_id = _private_key(key), key_id, team_id
        self._signed = lru_cache(maxsize=2)(self._sign)

    def token(self, at: datetime) -> str:
        """The token to use at the time ``at``, the same from whichever process through all of a slot."""
        slot = int(at.timestamp()) // SLOT_SECONDS
        return self._signed(slot * SLOT_SECONDS - BACK_SECONDS)

    def _sign(self, issued_at: int) -> str:
        head, claims = {"alg": "ES256", "kid": self._key_id}, {"iss": self._team_id, "iat": issued_at}
        parts = [base64url_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims)]
        text = b".".join(parts)
        # The two numbers of the signature one after the other, where the library gives them in ASN.1.
        numbers = decode_dss_signature(self._key.sign(text, ec.ECDSA(SHA256(), deterministic_signing=True)))
        signature = b"".join(number.to_bytes(_NUMBER_BYTES, "big") for number in numbers)
        return (text + b"." + base64url_encode(signature)).decode()


def _private_key(text: str) -> ec.EllipticCurvePrivateKey:
    key: object = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(text.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidOption("key", "must be the text of an APNs key: -----BEGIN PRIVATE KEY----- and what follows")
    return key
