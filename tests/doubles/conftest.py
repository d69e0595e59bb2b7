"""Stand-ins for vendors that nobody here wrote: installed from npm and PyPI once, started on free ports, ended after the test.

Run by `./bin/test --doubles`. Twilio and Telegram are played from OpenAPI files in the folder $PROVIDER_SPECS:
``twilio/twilio_api_v2010.json`` (github.com/twilio/twilio-oai) and ``telegram/openapi.prism-ready.json``
(github.com/ark0f/tg-bot-api, its routes below ``/bot{token}``).
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import socket
import subprocess
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.channels.certificates import Authority

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".chaski" / "doubles"
START_SECONDS = 60.0


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder with the installed packages."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("the doubles run on Node.js, which is missing; install it with: apt-get install nodejs npm")
    lock, installed = HERE / "package-lock.json", FOLDER / "installed.json"
    if not (installed.exists() and filecmp.cmp(lock, installed, shallow=False)):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, FOLDER / name)
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=FOLDER, check=True)
        shutil.copy(lock, installed)
    return FOLDER / "node_modules"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def started(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A process that listens on ``port``."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait_for(port, process, log)
            yield
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"it ended: {log.read_text()[-2000:]}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"it does not listen on {port} after {START_SECONDS} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def prism(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Plays the API of an OpenAPI file below $PROVIDER_SPECS; gives its base URL."""
    specs = os.environ.get("PROVIDER_SPECS")
    with ExitStack() as running:

        def play(file: str) -> str:
            if not specs:
                pytest.skip("PROVIDER_SPECS is not set: it names the folder with the vendors' OpenAPI files")
            port = free_port()
            command = modules / "@stoplight/prism-cli/dist/index.js"
            arguments = ["node", str(command), "mock", "-h", "127.0.0.1", "-p", str(port), str(Path(specs) / file)]
            running.enter_context(started(arguments, port, tmp_path_factory.mktemp("prism") / "log"))
            return f"http://127.0.0.1:{port}"

        yield play


@pytest.fixture(scope="session")
def maildev(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """A mail server that parses what it gets; gives its SMTP port and the URL of its JSON."""
    smtp, web = free_port(), free_port()
    folder = tmp_path_factory.mktemp("maildev")
    arguments = ["node", str(modules / "maildev/bin/maildev"), "--ip", "127.0.0.1", "-s", str(smtp), "-w", str(web)]
    with started([*arguments, "--mail-directory", str(folder / "mails")], web, folder / "log"):
        yield smtp, f"http://127.0.0.1:{web}"


@dataclass(frozen=True)
class SmscDouble:
    """An SMSC of the npm package ``smpp`` (``smsc.js``), and the address at which it tells what it saw."""

    port: int
    url: str

    def seen(self) -> Any:
        """What was bound, submitted, acknowledged."""
        with urlopen(self.url) as answer:
            return json.load(answer)

    def write(self, sender: str, text: str) -> int:
        """A person writes; the status that the delivery is answered with."""
        with urlopen(Request(self.url, json.dumps({"from": sender, "text": text}).encode())) as answer:
            status: int = json.load(answer)["status"]
            return status


@pytest.fixture
def smsc(modules: Path, tmp_path: Path) -> Iterator[SmscDouble]:
    """A new one, which knows nothing yet."""
    smpp, web = free_port(), free_port()
    shutil.copy(HERE / "smsc.js", FOLDER / "smsc.js")
    with started(["node", str(FOLDER / "smsc.js"), str(smpp), str(web)], web, tmp_path / "smsc.log"):
        yield SmscDouble(smpp, f"http://127.0.0.1:{web}")


@pytest.fixture(scope="session")
def python_packages() -> Path:
    """The folder with the commands of the packages from PyPI: an environment of their own, for they bring much along."""
    wanted, home = HERE / "requirements.txt", FOLDER / "python"
    installed = home / "installed.txt"
    if not (installed.exists() and filecmp.cmp(wanted, installed, shallow=False)):
        venv.create(home, clear=True, with_pip=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(wanted)], check=True)
        shutil.copy(wanted, installed)
    return home / "bin"


@pytest.fixture(scope="session")
def moto(python_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Plays AWS; gives its base URL."""
    port = free_port()
    command = [str(python_packages / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with started(command, port, tmp_path_factory.mktemp("moto") / "log"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def push_service(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A push service and the browsers behind it, which check the signature and decrypt what they get; gives its URL."""
    port = free_port()
    command = ["node", str(modules / "web-push-testing/src/bin/server.js"), str(port)]
    with started(command, port, tmp_path_factory.mktemp("web-push-testing") / "log"):
        yield f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class WireMock:
    """As it runs: ``url`` speaks HTTP/2 over TLS, with a certificate of ``authority`` (PEM); ``admin`` is its own API."""

    url: str
    admin: str
    authority: str


@pytest.fixture(scope="session")
def wiremock(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireMock]:
    """Answers as it is told, over HTTP/2."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("WireMock runs on Java, which is missing; install it with: apt-get install default-jre-headless")
    (jar,) = (modules / "wiremock/build").glob("wiremock-standalone-*.jar")
    folder, authority = tmp_path_factory.mktemp("wiremock"), Authority.made()
    authority.keystore("localhost", folder / "keystore.p12", "password")
    web, secure = free_port(), free_port()
    ports = ["--bind-address", "127.0.0.1", "--port", str(web), "--https-port", str(secure)]
    keys = ["--https-keystore", str(folder / "keystore.p12"), "--keystore-type", "PKCS12"]
    words = ["--keystore-password", "password", "--key-manager-password", "password"]
    command = [java, "-Xmx256m", "-jar", str(jar), *ports, *keys, *words, "--root-dir", str(folder)]
    with started(command, secure, folder / "log"):
        yield WireMock(f"https://localhost:{secure}", f"http://127.0.0.1:{web}/__admin", authority.pem.decode())
