"""One bind: a connection to an SMSC that is logged in as a transceiver, until either side ends it.

Opened and used by ``link``. It knows of every message whether it was written, and whether it was answered.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from channels.base import NotSent, SendError
from channels.smpp_codes import OK, PERMANENT, TEMPORARY, UNKNOWN_COMMAND, UNKNOWN_ERROR, bind_refusal, slows
from channels.smpp_gateway import pdu
from channels.smpp_gateway.account import GatewayAccount, Patience
from channels.smpp_gateway.exchange import Delivered
from channels.smpp_gateway.pdu import LAST_SEQUENCE, RESPONSE, Broken, Command, Pdu
from channels.smpp_gateway.window import SendWindow

log = structlog.get_logger(__name__)

#: Has Chaski taken what the SMSC delivered?
Deliver = Callable[[Delivered], Awaitable[bool]]
#: Deliveries that may wait for Chaski at once; the SMSC repeats those beyond.
_DELIVERIES = 200


class NotBound(Exception):
    """There is no bind; ``error`` is what that means for a message. ``status`` is the SMSC's, 0 where it said nothing."""

    def __init__(self, error: SendError, status: int = 0) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


class NotWritten(Exception):
    """Nothing of it has left; the text says why."""


class NotAnswered(Exception):
    """It was written, and its answer will not be known. ``code`` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Bind:
    """Belongs to its loop. Any number of messages may be under way; ``window`` tells how many should be."""

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        account: GatewayAccount,
        patience: Patience,
        deliver: Deliver,
    ) -> None:
        self._reader, self._writer = streams
        self._account, self._patience, self._deliver = account, patience, deliver
        self._sequence = 0
        self._waiting: dict[int, tuple[Command, asyncio.Future[Pdu]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deliveries = 0
        self._leaving = False
        self.window = SendWindow(account.window)
        self.ended = asyncio.Event()

    @classmethod
    async def open(cls, account: GatewayAccount, patience: Patience, deliver: Deliver) -> Bind:
        """A bind that is up. Raises ``NotBound``."""
        bind = cls(await _connected(account, patience), account, patience, deliver)
        try:
            await bind._log_in()
        except BaseException:
            bind._end()
            raise
        bind._keep(bind._enquire())
        return bind

    @property
    def is_up(self) -> bool:
        """May a message be written?"""
        return not self.ended.is_set() and not self._leaving and not self._writer.is_closing()

    async def submit(self, body: bytes) -> Pdu:
        """Write a ``submit_sm`` at once, and wait for its answer. Raises ``NotWritten``, ``NotAnswered``."""
        answer = self._written(Command.SUBMIT_SM, body)
        self.window.begin()
        try:
            said = await self._answered(answer, self._patience.late)
        finally:
            self.window.end()
        if said.status == OK:
            self.window.accepted()
        elif slows(said.status):
            self.window.throttled()
        return said

    async def close(self) -> None:
        """Unbind in good order, or without the SMSC's answer after some seconds."""
        if self.is_up:
            with suppress(NotWritten, NotAnswered):
                answer = self._written(Command.UNBIND, b"")
                self._leaving = True  # an SMSC refuses what comes behind it, as from somebody who never logged in
                await self._answered(answer, self._patience.answer)
        self._end()

    # -- what we ask

    async def _log_in(self) -> None:
        self._keep(self._read())
        settings = self._account.settings
        body = pdu.bind_body(settings["system_id"], settings["password"], settings["system_type"])
        try:
            said = await self._ask(Command.BIND_TRANSCEIVER, body)
        except (NotWritten, NotAnswered) as error:
            words = "the SMSC took the connection and did not answer the bind; look at host, port and security"
            raise NotBound(NotSent("bind_unanswered", words)) from error
        if said.status != OK:
            raise NotBound(bind_refusal(said.status), said.status)

    async def _enquire(self) -> None:
        """A connection whose other end is gone looks open for hours: ask now and then."""
        try:
            while True:
                await asyncio.sleep(self._patience.enquire)
                await self._ask(Command.ENQUIRE_LINK, b"")
        except NotAnswered as error:
            log.warning("smpp_bind_silent", account=self._account.id, reason=error.code)
        except NotWritten:
            pass
        self._end()

    async def _ask(self, command: Command, body: bytes) -> Pdu:
        return await self._answered(self._written(command, body), self._patience.answer)

    def _written(self, command: Command, body: bytes) -> asyncio.Future[Pdu]:
        """Hand a request to the network; what its answer will be."""
        if not self.is_up:
            raise NotWritten("the bind ended a moment ago")
        self._sequence = self._sequence % LAST_SEQUENCE + 1
        answer: asyncio.Future[Pdu] = asyncio.get_running_loop().create_future()
        self._waiting[self._sequence] = command, answer
        answer.add_done_callback(partial(self._forget, self._sequence))
        self._writer.write(Pdu(command, self._sequence, body=body).written())
        return answer

    def _forget(self, sequence: int, _answer: asyncio.Future[Pdu]) -> None:
        del self._waiting[sequence]

    async def _answered(self, answer: asyncio.Future[Pdu], seconds: float) -> Pdu:
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise NotAnswered("timeout") from None

    # -- what comes

    async def _read(self) -> None:
        try:
            while True:
                self._take(await pdu.read(self._reader))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except Broken as error:
            log.warning("smpp_pdu_broken", account=self._account.id, reason=str(error))
        finally:
            self._end()

    def _take(self, come: Pdu) -> None:
        if come.is_response:
            self._answer_to(come)
        elif come.command == Command.DELIVER_SM:
            self._keep(self._delivered(come))
        elif come.command == Command.ENQUIRE_LINK:
            self._answer(come)
        elif come.command == Command.UNBIND:
            self._answer(come)
            self._writer.close()  # after what is written; nothing more is
        elif come.command != Command.ALERT_NOTIFICATION:  # which wants no answer
            self._reply(Pdu(Command.GENERIC_NACK, come.sequence, UNKNOWN_COMMAND))

    def _answer_to(self, come: Pdu) -> None:
        """Hand an answer to who waits for it. Raises ``Broken`` for one of another kind: it says nothing of what was asked."""
        command, answer = self._waiting.get(come.sequence, (None, None))
        if command is None or answer is None or answer.done():
            return
        if come.command == Command.GENERIC_NACK:
            come = replace(come, status=come.status or UNKNOWN_ERROR)
        elif come.command != command | RESPONSE:
            raise Broken(f"an answer {come.command:#x} to a request {command:#x}")
        answer.set_result(come)

    async def _delivered(self, come: Pdu) -> None:
        """Acknowledge only what Chaski has stored: the SMSC repeats the rest."""
        self._deliveries += 1
        try:
            delivered = pdu.delivered(come.body)
            taken = self._deliveries <= _DELIVERIES and await self._deliver(delivered)
            status = OK if taken else TEMPORARY
        except Broken as error:
            log.error("smpp_delivery_unreadable", account=self._account.id, reason=str(error))
            status = PERMANENT  # no repeat would make it readable
        finally:
            self._deliveries -= 1
        self._answer(come, status, b"\0")

    def _answer(self, come: Pdu, status: int = OK, body: bytes = b"") -> None:
        self._reply(Pdu(come.command | RESPONSE, come.sequence, status, body))

    def _reply(self, reply: Pdu) -> None:
        if self.is_up:
            self._writer.write(reply.written())

    # -- its end

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        """Once: who waits for an answer gets none."""
        if self.ended.is_set():
            return
        self.ended.set()
        self._writer.transport.abort()
        for _, answer in list(self._waiting.values()):
            if not answer.done():
                answer.set_exception(NotAnswered("connection_lost"))
                answer.exception()  # one whose asker has gone is no mistake of ours
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()


async def _connected(account: GatewayAccount, patience: Patience) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises ``NotBound``."""
    settings = account.settings
    context = ssl.create_default_context() if settings["security"] == "tls" else None
    try:
        async with asyncio.timeout(patience.connect):
            return await asyncio.open_connection(settings["host"], int(settings["port"]), ssl=context)
    except TimeoutError:
        raise NotBound(NotSent("connect_timeout", "no connection to the SMSC in time; look at host and port")) from None
    except ssl.SSLError as error:
        words = f"no TLS connection to the SMSC ({error.reason}); look at its certificate, its name and the port"
        raise NotBound(NotSent("tls", words)) from error
    except (OSError, UnicodeError) as error:
        words = f"no connection to the SMSC ({getattr(error, 'strerror', None) or type(error).__name__}); look at host and port"
        raise NotBound(NotSent("connect_failed", words)) from error
