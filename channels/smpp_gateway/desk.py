"""Where workers bring their messages: `POST /submit`, and `GET /health` for whoever watches the process.

Made by ``server``. It has the links of all accounts, and changes them when the accounts change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web

from channels.http import HttpClient
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.exchange import (
    ACCOUNT_HEADER,
    SIGNATURE_HEADER,
    Answer,
    NotSaid,
    Outcome,
    Purpose,
    Submission,
    is_signed,
    read,
    written,
)
from channels.smpp_gateway.link import Link
from channels.smpp_gateway.teller import Teller

log = structlog.get_logger(__name__)

_STOPPING = Answer(Outcome.NOT_SENT, code="gateway_stopping", detail="the SMPP gateway is being stopped")
_UNKNOWN = Answer(
    Outcome.NOT_SENT,
    code="gateway_unaware",
    detail="the SMPP gateway does not know the account as it is now; it reads the accounts every few seconds."
    " If this stays: does it use the same database and CHASKI_PUBLIC_URL?",
)
_LOGIN_TAKEN = Answer(
    Outcome.NOT_SENT,
    code="login_shared",
    detail="another account has the same host, port and system_id, so receipts of the one would come to the other;"
    " keep one of them and share it",
)


class Desk:
    """Belongs to its loop."""

    def __init__(self, http: HttpClient, patience: Patience) -> None:
        self._patience = patience
        self._teller = Teller(http, patience)
        self._links: dict[str, Link] = {}
        #: Keys of accounts whose login another account has.
        self._shared: frozenset[str] = frozenset()
        self._telling: set[asyncio.Task[None]] = set()
        self._stopping = False
        #: Set when a worker knows an account that is not known here.
        self.unaware = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        """Where requests go."""
        return [web.post("/submit", self._submit), web.get("/health", self._health)]

    async def set_up(self, accounts: Sequence[GatewayAccount]) -> None:
        """Have a link for each of ``accounts`` and no other: what is gone is unbound first, for a login may be used again."""
        wanted = _by_login(accounts)
        shared = [account for account in accounts if account.key not in wanted]
        for account in shared:
            if account.key not in self._shared:
                log.error("smpp_login_shared", account=account.id)
        self._shared = frozenset(account.key for account in shared)
        gone = [self._links.pop(key) for key in set(self._links) - set(wanted)]
        await asyncio.gather(*(link.close() for link in gone))
        for key in set(wanted) - set(self._links):
            self._links[key] = self._link(wanted[key])
            self._links[key].start()

    async def close(self) -> None:
        """Take nothing more, finish within some seconds, unbind everywhere."""
        self._stopping = True
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))
        if self._telling:
            await asyncio.wait(self._telling, timeout=self._patience.ending)
        for task in self._telling:
            task.cancel()

    def _link(self, account: GatewayAccount) -> Link:
        def late(submission: Submission, answer: Answer) -> None:
            if answer.outcome is Outcome.ACCEPTED:
                self._keep(self._teller.taken(account, submission.message_id, answer.provider_message_id))

        return Link(
            account, self._patience, deliver=lambda delivered: self._teller.delivered(account, delivered), late=late
        )

    async def _submit(self, request: web.Request) -> web.Response:
        key, body = request.headers.get(ACCOUNT_HEADER, ""), await request.read()
        if self._stopping:
            return _said(_STOPPING)
        link = self._links.get(key)
        if link is None:
            self.unaware.set()
            return _said(_LOGIN_TAKEN if key in self._shared else _UNKNOWN)
        secret = link.account.settings["gateway_secret"]
        if not is_signed(secret, Purpose.SUBMIT, body, request.headers.get(SIGNATURE_HEADER, "")):
            log.warning("smpp_submission_forged", account=link.account.id)
            return web.Response(status=401)
        try:
            submission = read(body, Submission)
        except NotSaid as error:
            log.warning("smpp_submission_unreadable", account=link.account.id, reason=str(error))
            return web.Response(status=400)
        answer = await link.submit(submission)
        if answer.outcome is Outcome.ACCEPTED and (request.transport is None or request.transport.is_closing()):
            # The worker is gone, and will be taken for one that vanished during the call.
            self._keep(self._teller.taken(link.account, submission.message_id, answer.provider_message_id))
        return _said(answer)

    async def _health(self, _request: web.Request) -> web.Response:
        up = sum(link.is_up for link in self._links.values())
        return web.json_response({"accounts": len(self._links), "bound": up})

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _said(answer: Answer) -> web.Response:
    return web.Response(body=written(answer), content_type="application/json")


def _by_login(accounts: Sequence[GatewayAccount]) -> Mapping[str, GatewayAccount]:
    """Key -> account; of several with one login the first."""
    logins = {account.login: account for account in sorted(accounts, key=lambda account: -account.id)}
    return {account.key: account for account in logins.values()}
