"""What tests of providers share: coroutine tests, a client, the simulator, servers that misbehave, certificates.

A test that is a coroutine runs on ``runner``; fixtures that hold servers open live on the same loop. It is asyncio's own,
or, where a module says ``loops.BOTH_LOOPS``, uvloop's too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from channels import urls
from channels.http import HttpClient
from channels.simulator.server import Running, running
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.server import running as running_gateway
from tests.channels import smtp_wire
from tests.channels.certificates import Authority
from tests.channels.smpp_office import SHORT, Office, Start
from tests.channels.smsc import Smsc
from tests.channels.wire import Server


@pytest.fixture
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the loop of one test."""
    made: Callable[[], asyncio.AbstractEventLoop] = getattr(request, "param", asyncio.new_event_loop)
    return made


@pytest.fixture
def runner(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[asyncio.Runner]:
    """The loop of one test."""
    with asyncio.Runner(loop_factory=new_loop) as made:
        yield made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on the test's own loop."""
    if not asyncio.iscoroutinefunction(pyfuncitem.obj):
        return None
    made: asyncio.Runner = pyfuncitem._request.getfixturevalue("runner")
    names = pyfuncitem._fixtureinfo.argnames
    made.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


Opened = Callable[[AbstractAsyncContextManager[Any]], Any]


@pytest.fixture
def opened(runner: asyncio.Runner) -> Iterator[Opened]:
    """Enters async context managers on the test's loop and leaves them after it, the last first."""
    held: list[AbstractAsyncContextManager[Any]] = []

    def enter(manager: AbstractAsyncContextManager[Any]) -> Any:
        entered = runner.run(manager.__aenter__())
        held.append(manager)
        return entered

    yield enter
    while held:
        runner.run(held.pop().__aexit__(None, None, None))


@pytest.fixture
def http(opened: Opened) -> HttpClient:
    """The client that the engine gives to providers."""
    client: HttpClient = opened(HttpClient())
    return client


@pytest.fixture
def simulator(opened: Opened, tmp_path: Path) -> Running:
    """The provider simulator, with short hangs."""
    started: Running = opened(running(tmp_path / "ledger.jsonl", hang_seconds=5, late_seconds=0.2))
    return started


@pytest.fixture
def server(opened: Opened) -> Server:
    """A server that does what the test tells it, on a plain socket."""
    started: Server = opened(Server.started())
    return started


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A certificate authority that nobody trusts but who is told to."""
    return Authority.made()


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the process trust ``authority``; gives its PEM file."""
    file = tmp_path / "authority.pem"
    file.write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


@pytest.fixture
def tls_context(authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    """What a server of the name ``localhost`` shows."""
    return authority.server_context("localhost", tmp_path)


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages may go to this machine, as in development, and nowhere else in private."""
    monkeypatch.setattr(urls, "_allowed", ())
    urls.allow_private_networks(["127.0.0.0/8"])


@pytest.fixture
def smsc(opened: Opened) -> Smsc:
    """An SMSC that takes everything."""
    started: Smsc = opened(Smsc.started())
    return started


@pytest.fixture
def office(smsc: Smsc, server: Server, http: HttpClient) -> Office:
    """An SMPP account with its SMSC and Chaski, without a gateway."""
    return Office.made(smsc, server, http)


@pytest.fixture
def stack(office: Office, opened: Opened) -> AsyncExitStack:
    """Ends what a test starts, before the office."""
    entered: AsyncExitStack = opened(AsyncExitStack())
    return entered


@pytest.fixture
def gateway(office: Office, stack: AsyncExitStack) -> Start:
    """Starts the SMPP gateway for the office's account with changes."""

    async def start(patience: Patience = SHORT, **changes: str) -> Office:
        office.settings = office.changed(**changes)
        office.accounts[:] = [GatewayAccount(1, office.settings, office.chaski.url)]
        office.gateway = await stack.enter_async_context(running_gateway(office.read, patience=patience, every=60))
        return office

    return start


@pytest.fixture(params=smtp_wire.MANNERS)
def manner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Mail servers take an envelope's commands one by one, or at once."""
    monkeypatch.setitem(smtp_wire.FRIENDLY, "EHLO", smtp_wire.MANNERS[request.param])
    chosen: str = request.param
    return chosen
