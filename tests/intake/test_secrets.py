"""Sealing: only the owner's row opens what was sealed for it, under any key that is still configured."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet

from deliveries.secrets import Unsealable, mint_key, seal, split_key, unseal


def test_what_was_sealed_for_an_owner_opens_for_it_alone() -> None:
    sealed = seal("account:1", {"token": "t"})
    assert unseal("account:1", sealed) == {"token": "t"}
    assert b"token" not in sealed
    with pytest.raises(Unsealable, match="sealed for account:1"):
        unseal("account:2", sealed)


def test_nothing_sealed_is_nothing() -> None:
    assert unseal("account:1", b"") == {}


def test_old_keys_open_and_the_newest_seals(settings: Any) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.CHASKI_CREDENTIAL_KEYS = [old]
    sealed = seal("a", {"x": "y"})
    settings.CHASKI_CREDENTIAL_KEYS = [new, old]
    assert unseal("a", sealed) == {"x": "y"}
    fresh = seal("a", {"x": "y"})
    settings.CHASKI_CREDENTIAL_KEYS = [new]
    assert unseal("a", fresh) == {"x": "y"}
    with pytest.raises(Unsealable, match="CHASKI_CREDENTIAL_KEYS"):
        unseal("a", sealed)


def test_a_tampered_seal_does_not_open() -> None:
    sealed = bytearray(seal("a", {"x": "y"}))
    sealed[20] ^= 1
    with pytest.raises(Unsealable):
        unseal("a", bytes(sealed))


def test_a_minted_key_is_split_into_what_is_stored() -> None:
    minted = mint_key(kind="live")
    assert split_key(minted.text) == (minted.key_id, minted.secret_sha256)
    assert mint_key(kind="live").text != minted.text


@pytest.mark.parametrize("place", [0, 3, 9, 30, 88, -1])
def test_a_slip_of_the_pen_is_found_without_a_look_up(place: int) -> None:
    text = list(mint_key(kind="live").text)
    text[place] = "0" if text[place] != "0" else "1"
    assert split_key("".join(text)) is None
