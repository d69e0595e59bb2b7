"""Secrets: credentials sealed at rest, and API keys that are stored only as hashes.

``seal`` and ``unseal`` are used by the commands, the admin and the delivery engine; the key functions by
`manage.py service` and the API's authentication.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

_KEY = re.compile(
    r"(?P<body>ck_(?:live|test)_(?P<id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{64}))_(?P<checksum>[0-9a-f]{8})\Z"
)


class Unsealable(ValueError):
    """A sealed value that none of the configured keys opens, or that belongs to another row."""


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.CHASKI_CREDENTIAL_KEYS])


def seal(owner: str, values: Mapping[str, str]) -> bytes:
    """``values`` encrypted for ``owner`` (such as ``account:7``), under the newest of CHASKI_CREDENTIAL_KEYS."""
    return _fernet().encrypt(json.dumps({"owner": owner, "values": dict(values)}).encode())


def unseal(owner: str, sealed: bytes) -> dict[str, str]:
    """What ``seal`` was given. Empty for an empty value. Raises ``Unsealable``.

    The owner is inside the ciphertext because Fernet binds no context: without it rows could be swapped.
    """
    if not sealed:
        return {}
    try:
        content = json.loads(_fernet().decrypt(bytes(sealed)))
    except InvalidToken as error:
        raise Unsealable(f"the secrets of {owner} open with none of CHASKI_CREDENTIAL_KEYS") from error
    if content["owner"] != owner:
        raise Unsealable(f"the secrets of {owner} were sealed for {content['owner']}")
    return dict(content["values"])


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new API key: ``text`` is shown once, the rest is stored."""

    text: str
    key_id: str
    secret_sha256: bytes


def mint_key(*, kind: str) -> MintedKey:
    """A new key of ``kind`` (live or test): ``ck_<kind>_<id>_<256-bit secret>_<checksum>``."""
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    body = f"ck_{kind}_{key_id}_{secret}"
    return MintedKey(f"{body}_{_checksum(body)}", key_id, digest(secret))


def split_key(text: str) -> tuple[str, bytes] | None:
    """(key id, SHA-256 of the secret) of a well-formed key; None for anything else."""
    found = _KEY.match(text)
    if found is None or _checksum(found["body"]) != found["checksum"]:
        return None
    return found["id"], digest(found["secret"])


def digest(secret: str) -> bytes:
    """SHA-256: enough for 256 random bits, and quick enough for every request."""
    return hashlib.sha256(secret.encode()).digest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
