"""A service account of Google's that nobody has, and a client that gives its access tokens without asking."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from channels.http import HttpClient, HttpResponse

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
TOKEN_URI = "https://oauth2.example/token"
_FIELDS = {
    "type": "service_account",
    "project_id": "shop-7",
    "private_key_id": "9f1c3a",
    "private_key": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    "client_email": "chaski@shop-7.iam.gserviceaccount.example",
    "token_uri": TOKEN_URI,
}


def account_file(**changes: Any) -> str:
    """The text of the JSON file, with ``changes``; None takes a field out."""
    fields = {**_FIELDS, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


class Vouching(HttpClient):
    """Gives ``token-1``, ``token-2`` and so on by itself; everything else goes over the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        """A token, or what is there."""
        if url != TOKEN_URI:
            return await super().request(method, url, **more)
        self.given += 1
        token = {"access_token": f"token-{self.given}", "expires_in": 3599, "token_type": "Bearer"}
        return HttpResponse(200, {}, json.dumps(token).encode())
