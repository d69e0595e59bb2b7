"""API keys: who gets in, and that those who do not learn nothing from it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deliveries.api import authentication
from deliveries.models import ApiKey
from deliveries.secrets import _checksum, mint_key, split_key
from tests.api.calls import Api, problem
from tests.factories import Caller, make_caller


def me(authorization: str | None) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return Client(raise_request_exception=False).get("/api/v1/me", headers=headers)


def refused(authorization: str | None) -> str:
    """The sentence of a 401, after checking that it is a whole problem."""
    answer = me(authorization)
    assert answer["WWW-Authenticate"] == "Bearer"
    return str(problem(answer, 401, "unauthenticated")["detail"])


def test_a_key_has_the_form_of_the_security_plan_and_only_its_hash_is_kept(shop: Caller) -> None:
    assert re.fullmatch(r"ck_live_[0-9a-f]{12}_[0-9a-f]{64}_[0-9a-f]{8}", shop.key)
    kept = ApiKey.objects.values().get()
    secret = shop.key.split("_")[3]
    assert secret not in str(kept)
    assert bytes(kept["secret_sha256"]) != secret.encode()


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {} "])
def test_the_scheme_is_read_as_http_has_it(shop: Caller, form: str) -> None:
    assert me(form.format(shop.key)).status_code == 200


@pytest.mark.parametrize(
    "form", ["{}", "Basic {}", "Bearer", "Bearer ", "Token {}", "Bearer {} x", "Bearer x{}", "Bearer {}0", ""]
)
def test_a_header_that_is_no_bearer_key_is_refused_with_the_remedy(shop: Caller, form: str) -> None:
    assert "Authorization: Bearer ck_" in refused(form.format(shop.key))


def test_no_header_is_refused_the_same_way(db: None) -> None:
    assert "Authorization: Bearer ck_" in refused(None)


def test_malformed_keys_cost_no_query(shop: Caller) -> None:
    body = shop.key.rpartition("_")[0]
    keys = [
        f"{body}_00000000",
        shop.key[:-1],
        shop.key.replace("live", "dead"),
        shop.key.upper(),
        "ck_live_\0_x_y",
        "ck____",
    ]
    with CaptureQueriesContext(connection) as queries:
        for key in keys:
            refused(f"Bearer {key}")
    assert len(queries) == 0
    assert split_key(shop.key) is not None


def forged(key: str) -> str:
    """The id of ``key`` with another secret and the right checksum."""
    body = "_".join([*key.split("_")[:3], "0" * 64])
    return f"{body}_{_checksum(body)}"


def test_an_unknown_id_and_a_wrong_secret_look_and_cost_the_same(shop: Caller) -> None:
    seen = []
    for key in (mint_key(kind="live").text, forged(shop.key)):
        for _ in range(2):  # what was asked for lately is answered from memory, in both cases
            with CaptureQueriesContext(connection) as queries:
                answer = me(f"Bearer {key}")
            found = problem(answer, 401, "unauthenticated")
            found.pop("request_id")
            headers = {name: value for name, value in answer.headers.items() if name != "X-Request-Id"}
            shapes = [re.sub(r"'[0-9a-f]{12}'", "?", query["sql"]) for query in queries.captured_queries]
            seen.append((found, headers, shapes))
    unknown, wrong = seen[:2], seen[2:]
    assert unknown == wrong
    assert [len(shapes) for _, _, shapes in unknown] == [1, 0]


def test_a_revoked_key_looks_like_an_unknown_one(shop: Caller) -> None:
    ApiKey.objects.update(revoked_at=datetime.now(UTC))
    assert refused(f"Bearer {shop.key}") == refused(f"Bearer {mint_key(kind='live').text}")


def test_a_key_in_use_is_refused_within_five_seconds_of_its_revocation(shop: Caller) -> None:
    assert me(f"Bearer {shop.key}").status_code == 200
    ApiKey.objects.update(revoked_at=datetime.now(UTC))
    revoked = time.monotonic()
    while me(f"Bearer {shop.key}").status_code == 200:
        assert time.monotonic() - revoked < 5
        time.sleep(0.1)


def test_an_expired_key_is_told_so_and_only_to_its_holder(shop: Caller) -> None:
    ApiKey.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert "expired" in refused(f"Bearer {shop.key}")
    assert "expired" not in refused(f"Bearer {forged(shop.key)}")


def test_a_key_that_expires_later_works(shop: Caller) -> None:
    ApiKey.objects.update(expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert me(f"Bearer {shop.key}").status_code == 200


def test_two_keys_of_a_service_work_at_once_for_a_rotation(shop: Caller) -> None:
    minted = mint_key(kind="live")
    ApiKey.objects.create(service=shop.service, key_id=minted.key_id, secret_sha256=minted.secret_sha256)
    names = {me(f"Bearer {key}").json()["name"] for key in (shop.key, minted.text)}
    assert names == {"shop"}


def test_last_used_is_written_coarsely(shop: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def used() -> datetime | None:
        return ApiKey.objects.get().last_used_at

    me(f"Bearer {shop.key}")
    first = used()
    assert first is not None
    monkeypatch.setattr(authentication, "_keys", authentication._Keys())  # as another process
    me(f"Bearer {shop.key}")
    assert used() == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=2))
    monkeypatch.setattr(authentication, "_keys", authentication._Keys())
    me(f"Bearer {shop.key}")
    assert used() > first  # type: ignore[operator]


def test_a_wrong_secret_is_no_use_of_the_key(shop: Caller) -> None:
    refused(f"Bearer {forged(shop.key)}")
    assert ApiKey.objects.get().last_used_at is None


def test_a_key_is_its_services_alone(api: Api, db: None) -> None:
    other = make_caller("elsewhere")
    assert me(f"Bearer {other.key}").json()["name"] == "elsewhere"
    assert api.get("me").json()["name"] == "shop"
