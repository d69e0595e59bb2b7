"""Where the client gets its address and key, what importing it loads, and how it bears threads and forks."""

from __future__ import annotations

import inspect
import os
import pathlib
import subprocess
import sys
import threading
import types
import uuid

import pytest

import chaski
from chaski.configuration import connection
from chaski.identifiers import Mint

ROOT = pathlib.Path(chaski.__file__).parent.parent


@pytest.fixture
def without_django(monkeypatch):
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)
    monkeypatch.delenv("CHASKI_URL", raising=False)
    monkeypatch.delenv("CHASKI_API_KEY", raising=False)


@pytest.fixture
def django_settings(monkeypatch, without_django):
    settings = types.SimpleNamespace(configured=True)
    monkeypatch.setitem(sys.modules, "django.conf", types.SimpleNamespace(settings=settings))
    return settings


@pytest.fixture
def environment(monkeypatch, without_django):
    monkeypatch.setenv("CHASKI_URL", "http://environment.example")
    monkeypatch.setenv("CHASKI_API_KEY", "ck_environment")


def run(code, **environment):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CHASKI_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**plain, **environment},
        timeout=60,
        check=False,
    )


def test_the_functions_use_the_environment_and_share_one_client(service, monkeypatch, without_django):
    monkeypatch.setenv("CHASKI_URL", f"{service.url}/")
    monkeypatch.setenv("CHASKI_API_KEY", "ck_test_env\n")
    sent = chaski.send("sms", "+56912345678", text="hola", key="k")
    assert chaski.send_many([{"channel": "sms", "to": "+1", "text": "a"}]).accepted == 1
    chaski.get(sent.id)
    assert {asked.headers["authorization"] for asked in service.asked} == {"Bearer ck_test_env"}
    assert [asked.path for asked in service.asked] == [
        "/api/v1/messages",
        "/api/v1/batches",
        f"/api/v1/messages/{sent.id}",
    ]
    assert service.connections == 1


@pytest.mark.parametrize("name", ["send", "send_many", "get", "list", "cancel", "redeliver", "wait"])
def test_each_function_takes_what_the_method_takes(name):
    method = inspect.signature(getattr(chaski.Client, name))
    function = inspect.signature(getattr(chaski, name))
    assert list(function.parameters.values()) == list(method.parameters.values())[1:]
    assert getattr(chaski, name).__doc__


def test_settings_of_a_configured_django_win_over_the_environment(django_settings, environment):
    django_settings.CHASKI_URL = "https://settings.example/api/v1/"
    assert connection(None, None) == ("https://settings.example", "ck_environment")


def test_an_empty_setting_says_not_here_even_when_the_environment_has_one(django_settings, environment):
    django_settings.CHASKI_URL = ""
    with pytest.raises(chaski.ConfigurationError, match="CHASKI_URL not set; looked in Django's settings"):
        connection(None, None)


def test_a_django_that_is_not_configured_is_left_alone(django_settings, environment):
    django_settings.configured = False
    django_settings.CHASKI_URL = "https://settings.example"
    assert connection(None, None)[0] == "http://environment.example"


def test_a_real_django_is_asked_once_it_is_configured():
    code = """if True:
        import chaski
        from django.conf import settings
        from chaski.configuration import connection
        before = connection(None, None)
        assert not settings.configured, "asking has configured Django"
        settings.configure(CHASKI_URL="http://settings.example", CHASKI_API_KEY="ck_settings")
        print(before, connection(None, None))
    """
    done = run(code, CHASKI_URL="http://environment.example", CHASKI_API_KEY="ck_environment")
    expected = "('http://environment.example', 'ck_environment') ('http://settings.example', 'ck_settings')"
    assert done.stdout.strip() == expected, done.stderr


def test_missing_settings_are_named_with_the_way_to_set_them(without_django):
    with pytest.raises(chaski.ConfigurationError) as caught:
        chaski.send("sms", "+56912345678", text="hola")
    for words in (
        "CHASKI_URL and CHASKI_API_KEY not set",
        "the environment",
        "service create",
        "chaski.Client(",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [
        ("chaski.example", "ck_a", "must look like https://"),
        ("ftp://chaski.example", "ck_a", "must look like https://"),
        ("http://user:secret@chaski.example", "ck_a", "no user and password"),
        ("http://chaski.example", "ck_a b", "holds blanks"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_without_showing_secrets(url, key, reason):
    with pytest.raises(chaski.ConfigurationError, match=reason) as caught:
        chaski.Client(url, key)
    assert "secret" not in str(caught.value)
    assert key not in str(caught.value)


@pytest.mark.parametrize("module", ["chaski", "chaski.vocabulary"])
def test_importing_loads_nothing_but_the_standard_library_until_a_client_is_made(module):
    code = f"""if True:
        import sys
        before = set(sys.modules)
        import {module}
        tops = {{name.partition(".")[0] for name in set(sys.modules) - before}}
        print(sorted(tops - set(sys.stdlib_module_names) - {{"chaski"}}))
        import chaski
        chaski.Client("http://localhost:1", "ck_a")
        print("urllib3" in sys.modules, "django" in sys.modules)
    """
    done = run(code)
    assert done.stdout.split("\n")[:2] == ["[]", "True False"], done.stderr


def test_a_missing_urllib3_is_told_when_a_client_is_made():
    without = "import sys; sys.modules['urllib3'] = None; "
    done = run(without + "import chaski; chaski.Client('http://localhost:1', 'ck_a')")
    assert "ConfigurationError" in done.stderr
    assert "pip install 'urllib3>=2'" in done.stderr


def test_many_threads_share_one_client_and_its_connections(service, client):
    barrier = threading.Barrier(8)
    ids = []

    def send_some():
        barrier.wait()
        ids.extend(client.send("sms", "+56912345678", text="hola").id for _ in range(10))

    threads = [threading.Thread(target=send_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 80
    assert {asked.json["id"] for asked in service.asked} == set(ids)
    assert service.connections <= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_opens_its_own_connection(service):
    code = f"""if True:
        import os, chaski
        client = chaski.Client({service.url!r}, "ck_a")
        client.get("parent")
        child = os.fork()
        for _ in range(20):
            client.get("child" if child == 0 else "parent")
        if child == 0:
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = run(code)
    assert done.stdout.strip() == "0", done.stderr
    assert len(service.asked) == 41
    assert service.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_can_mint_although_a_thread_of_its_parent_was_minting():
    code = """if True:
        import os
        from chaski.identifiers import Mint
        mint = Mint()
        mint._lock.acquire()
        child = os.fork()
        if child == 0:
            mint()
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code).stdout.strip() == "0"


def test_identifiers_are_version_7_and_only_grow():
    mint = Mint()
    made = [mint() for _ in range(5000)]
    assert {(each.version, each.variant) for each in made} == {(7, uuid.RFC_4122)}
    assert made == sorted(set(made))


def test_identifiers_carry_the_time_and_grow_even_when_the_clock_goes_back():
    ticks = iter([2_000_000_000, 1_000_000_000, 1_000_000_000, 3_000_000_000])
    mint = Mint(clock=lambda: next(ticks))
    made = [mint() for _ in range(4)]
    assert made == sorted(made)
    assert [each.int >> 80 for each in made] == [2000, 2000, 2000, 3000]


def test_a_used_up_millisecond_borrows_from_the_next():
    mint = Mint(clock=lambda: 1_000_000_000)
    first = mint()
    mint._tail = (1 << 74) - 1
    assert mint().int >> 80 == (first.int >> 80) + 1
