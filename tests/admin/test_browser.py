"""What support does, in Chromium: find a message by phone number, read why it failed, send it again.

Run by `bin/test --browser`. Screenshots of every step lie in .chaski/screenshots afterwards.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from deliveries.models import Account, Breaker, BreakerEvent, Message, Reply, UnmappedCode
from deliveries.models.breakers import BreakerChange
from tests.admin import rows
from tests.deliveries import steps
from tests.factories import make_account, make_caller

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SHOTS = Path(settings.BASE_DIR) / ".chaski" / "screenshots"
NEEDED = "The browser tests need Chromium and its driver: `apt-get install chromium chromium-driver`."


class Person:
    """Somebody at a browser."""

    def __init__(self, driver: webdriver.Chrome, base: str, width: int, height: int) -> None:
        self.driver = driver
        self.base = base
        self.size = (width, height)
        self._measure(width, height)

    def _measure(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def go(self, path: str) -> None:
        """Open a page."""
        self.driver.get(self.base + path)

    def find(self, css: str) -> Any:
        """The element, as soon as it is there."""
        return self._wait().until(lambda driver: driver.find_element(By.CSS_SELECTOR, css))

    def reads(self, text: str) -> None:
        """Wait until the page says ``text``."""
        self._wait().until(lambda driver: text in driver.find_element(By.TAG_NAME, "body").text)

    def _wait(self) -> WebDriverWait[webdriver.Chrome]:
        """Patience with what is not there yet, and with what a new page has just replaced."""
        passing = (NoSuchElementException, StaleElementReferenceException)
        return WebDriverWait(self.driver, 10, ignored_exceptions=passing)

    def log_in(self, user: User) -> None:
        """Through the form."""
        self.go("/admin/")
        self.find("#id_username").send_keys(user.get_username())
        self.find("#id_password").send_keys("long enough")
        self.find("button[type=submit]").click()
        self.reads("Find a message")

    def shoot(self, name: str) -> None:
        """Keep what the page looks like, over its whole length."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        width, height = self.size
        whole = self.driver.execute_script("return document.body.scrollHeight")
        self._measure(width, min(max(whole, height), 3000))
        self.driver.save_screenshot(str(SHOTS / f"{name}.png"))
        self._measure(width, height)

    def complaints(self) -> list[str]:
        """What the console says in red: errors of scripts, refused sources."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def chromium() -> webdriver.Chrome:
    """A headless Chromium from the system."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.fail(NEEDED, pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))


@pytest.fixture
def desk(live_server: Any) -> Iterator[Person]:
    """At a desk."""
    driver = chromium()
    yield Person(driver, live_server.url, 1440, 900)
    driver.quit()


@pytest.fixture
def phone(live_server: Any) -> Iterator[Person]:
    """On a phone."""
    driver = chromium()
    yield Person(driver, live_server.url, 390, 844)
    driver.quit()


@pytest.fixture
def operator(transactional_db: None) -> User:
    """Somebody who may act and read bodies."""
    user = User.objects.create_superuser("ana", password="long enough")
    user.groups.set(Group.objects.filter(name="operator"))
    return user


@pytest.fixture
def failed(transactional_db: None) -> Message:
    """A message that failed, among others."""
    shop = make_caller("shop").service
    make_account("sms", "sandbox", "texts")
    make_account("email", "sandbox", "mails")
    make_account("webhook", "sandbox", "hooks")
    for message in rows.accept_many(shop, 12)[:8]:
        rows.sent(message)
    rows.in_doubt(rows.accept(shop, to="+56922222222"))
    rows.accept(shop, channel="email", to="ana@example.org", subject="Hello", html="<p>Hi <b>Ana</b></p>")
    rows.sent(rows.accept(shop, channel="email", to="luz@example.org", subject="Hello", text="Hi"))
    return rows.failed(rows.accept(shop, reference="order-1001"), task_id="9e1c7a54-5a3b-4a2e-9d5e-2f6b1f6f0c11")


def test_support_finds_a_message_by_phone_number_and_sends_it_again(
    desk: Person, operator: User, failed: Message, settings: Any
) -> None:
    settings.CHASKI_FLOWER_URL = "http://127.0.0.1:5555"
    desk.log_in(operator)
    desk.shoot("start")
    desk.go("/admin/deliveries/message/")
    desk.shoot("list")
    desk.find("#searchbar").send_keys("56 9 1234 5678\n")
    desk.reads("order-1001")
    desk.shoot("found")
    desk.find("#result_list tbody a").click()
    desk.reads("Did it arrive?")
    desk.reads("The 'To' number is not valid")
    desk.shoot("message")
    desk.find("input[name=reason]").send_keys("the customer gave us the number again")
    desk.find("button[value=redeliver]").click()
    desk.reads("The message is queued again.")
    desk.shoot("redelivered")
    failed.refresh_from_db()
    assert failed.status == "queued"
    assert desk.complaints() == []


class Pixel:
    """A server that a body would like to reach: it remembers what was asked of it."""

    def __init__(self) -> None:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quietly."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def pixel() -> Iterator[Pixel]:
    """Where a hostile body points to."""
    found = Pixel()
    yield found
    found.close()


def test_a_hostile_body_runs_nothing_and_reaches_nobody(
    desk: Person, operator: User, failed: Message, pixel: Pixel
) -> None:
    evil = (
        f"<style>p {{ color: green }}</style><p>Hi <b>Ana</b></p><img src='{pixel.url}/img'>"
        f"<link rel=stylesheet href='{pixel.url}/css'><iframe src='{pixel.url}/frame'></iframe>"
        f"<script>top.document.title = 'taken'; fetch('{pixel.url}/fetch')</script>"
        f"<img src=x onerror=\"parent.document.title='taken'\"><meta http-equiv=refresh content='0;url={pixel.url}/go'>"
        f"<form action='{pixel.url}/form'><button autofocus>x</button></form>"
    )
    message = rows.accept(
        failed.service, channel="email", to="eva@example.org", subject="Hello", text="</pre><b>bold?</b>", html=evil
    )
    desk.log_in(operator)
    desk.go(f"/admin/deliveries/message/{message.pk}/change/")
    form = desk.driver.find_elements(By.CSS_SELECTOR, "form.chaski-act")[-1]
    form.find_element(By.NAME, "reason").send_keys("the customer cannot read it")
    form.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    desk.reads("scripts do not run")
    said = []
    for frame in desk.driver.find_elements(By.CSS_SELECTOR, "iframe.chaski-body"):
        desk.driver.switch_to.frame(frame)
        said.append(desk.driver.find_element(By.TAG_NAME, "body").text)
        desk.driver.switch_to.default_content()
    desk.shoot("body")
    assert said[0] == "</pre><b>bold?</b>"
    assert said[1].startswith("Hi Ana")
    assert "taken" not in desk.driver.title
    assert pixel.asked == []


def test_the_pages_fit_a_phone(phone: Person, operator: User, failed: Message) -> None:
    phone.log_in(operator)
    for name, path in (
        ("start", "/admin/"),
        ("list", "/admin/deliveries/message/"),
        ("message", f"/admin/deliveries/message/{failed.pk}/change/"),
    ):
        phone.go(path)
        wide = phone.driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{path} is {wide} pixels wider than the screen"
        phone.shoot(f"phone-{name}")
    assert phone.complaints() == []


@pytest.fixture
def eventful(failed: Message) -> None:
    """A row at least for each page that has few."""
    account = Account.objects.get(name="texts")
    Breaker.objects.create(account_id=account.pk, probe_at=steps.now() + timedelta(minutes=1))
    BreakerEvent.objects.create(account=account, change=BreakerChange.OPENED, detail="20 of 20 calls failed")
    UnmappedCode.objects.create(
        provider="twilio", code="63999", error_class="transient", detail="Something new", message_id=failed.pk, times=7
    )
    for number, text in enumerate(["STOP", "When will it come? " * 20, "<script>document.title = 'taken'</script>"]):
        Reply.objects.create(
            account=account, event_id=str(number), channel="sms", sender="+56922222222", name="Luz", text=text,
            message_id=failed.pk, service_id=failed.service_id, applied_at=steps.now(), wish="stop" if not number else "",
        )  # fmt: skip


@pytest.mark.parametrize("who", ["desk", "phone"])
def test_every_page_of_the_sidebar_opens_without_a_complaint(
    who: str, request: pytest.FixtureRequest, operator: User, eventful: None
) -> None:
    person: Person = request.getfixturevalue(who)
    person.log_in(operator)
    links = person.driver.execute_script(
        "return [...new Set([...document.querySelectorAll('#nav-sidebar a[href]')].map(a => a.getAttribute('href')))]"
    )
    paths = [path for path in links if path.startswith("/admin/") and "logout" not in path]
    assert len(paths) > 15
    person.reads("Its messages wait; one is tried now and then.")
    for path in ["/admin/", *paths]:
        person.go(path)
        wide = person.driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{path} is {wide} pixels wider than the screen"
        assert person.complaints() == [], path
        assert "taken" not in person.driver.title
        person.shoot(f"{who}-page-{path.strip('/').replace('/', '-').replace('?', '-')[:60]}")
