"""The binds of the SMPP gateway: kept up, given up and changed, and told of in words."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

from channels.base import InDoubt, Misconfigured, NotSent
from channels.smpp_gateway.account import GatewayAccount
from channels.smpp_gateway.pdu import Command
from channels.smpp_gateway.server import running
from tests.channels import smsc as sides
from tests.channels.smpp_office import SHORT, Office, Start, until
from tests.channels.smsc import Smsc
from tests.channels.wire import Server


async def test_an_smsc_that_is_away_is_not_sent(gateway: Start, smsc: Smsc, office: Office) -> None:
    async with Smsc.started() as gone:
        port = gone.port
    await gateway(port=str(port))
    error = await office.refused()
    assert type(error) is NotSent
    assert error.code == "connect_failed"
    assert "host and port" in error.detail


async def test_an_smsc_that_comes_back_is_bound_again(gateway: Start, office: Office) -> None:
    async with Smsc.started() as first:
        port = first.port
        await gateway(port=str(port))
        await office.send()
    async with Smsc.started(port) as second:
        await second.bound()
        assert (await office.send()).provider_message_id == "id-1"


async def test_a_wrong_password_stops_the_account_in_words_and_is_not_tried_all_the_time(
    gateway: Start, smsc: Smsc
) -> None:
    smsc.bind_status = 0x0E
    office = await gateway(replace(SHORT, refused=30.0))
    for _ in range(5):
        error = await office.refused()
        assert type(error) is Misconfigured
        assert "the password is wrong" in error.detail
    assert len(smsc.binds) == 1


async def test_a_bind_that_the_smsc_still_holds_passes(gateway: Start, smsc: Smsc) -> None:
    smsc.bind_status = 0x05
    office = await gateway()
    error = await office.refused()
    assert (type(error), error.code) == (NotSent, "bind_0x05")
    smsc.bind_status = 0
    await smsc.bound()
    assert await office.send()


async def test_a_bind_that_ends_as_soon_as_it_is_up_is_not_tried_all_the_time(gateway: Start, smsc: Smsc) -> None:
    office = await gateway(replace(SHORT, steady=10.0, again=30.0, again_least=30.0, again_most=30.0))
    (await smsc.bound()).cut()
    await smsc.until(lambda there: not there.sessions)
    error = await office.refused()
    assert (type(error), error.code) == (NotSent, "not_bound")
    assert len(smsc.binds) == 1


async def test_a_message_asks_for_a_bind_before_a_long_rest_is_over(gateway: Start, office: Office) -> None:
    async with Smsc.started() as gone:
        port = gone.port
    await gateway(replace(SHORT, again=600.0, again_least=0.1, again_most=600.0), port=str(port))
    assert (await office.refused()).code == "connect_failed"
    async with Smsc.started(port) as back:
        async with asyncio.timeout(5):
            while not back.submitted:
                with suppress(NotSent):
                    await office.send()


async def test_a_bind_goes_over_tls_where_the_certificate_is_trusted(
    gateway: Start, office: Office, stack: AsyncExitStack, tls_context: ssl.SSLContext, trusted: Path
) -> None:
    safe = await stack.enter_async_context(Smsc.started(tls=tls_context))
    await gateway(host="localhost", port=str(safe.port), security="tls")
    assert await office.send()
    assert len(safe.submitted) == 1


async def test_a_certificate_that_nobody_trusts_is_not_sent(
    gateway: Start, office: Office, stack: AsyncExitStack, tls_context: ssl.SSLContext
) -> None:
    strange = await stack.enter_async_context(Smsc.started(tls=tls_context))
    await gateway(host="localhost", port=str(strange.port), security="tls")
    error = await office.refused()
    assert (type(error), error.code) == (NotSent, "tls")
    assert strange.binds == []


async def test_an_smsc_that_does_not_answer_the_bind_is_not_sent(gateway: Start, office: Office) -> None:
    async with Server.started() as deaf:
        await gateway(port=str(deaf.port))
        error = await office.refused()
    assert (type(error), error.code) == (NotSent, "bind_unanswered")


async def test_a_bind_whose_other_end_is_gone_is_noticed(gateway: Start, smsc: Smsc) -> None:
    office = await gateway(replace(SHORT, enquire=0.1, answer=0.3))
    await smsc.until(lambda there: there.enquiries > 2)
    smsc.answers_enquiries, smsc.on_submit = False, sides.silent
    error = await office.refused()
    assert (type(error), error.code) == (InDoubt, "connection_lost")
    smsc.answers_enquiries, smsc.on_submit = True, sides.accepts
    assert await office.send()


async def test_the_smscs_own_requests_are_answered(gateway: Start, smsc: Smsc) -> None:
    await gateway()
    session = await smsc.bound()
    assert (await session.ask(Command.ENQUIRE_LINK)).status == 0
    assert (await session.ask(0x0103)).status == 0x03
    assert (await session.ask(Command.UNBIND)).status == 0
    await smsc.until(lambda there: len(there.binds) == 2)


async def test_octets_that_are_no_smpp_end_the_bind(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    session = await smsc.bound()
    session.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await smsc.until(lambda there: len(there.binds) == 2)
    assert await office.send()


async def test_an_account_that_changed_is_not_sent_by_its_old_bind(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    await office.send()
    new = office.changed(password="n3w")
    office.accounts[:] = [GatewayAccount(1, new, office.chaski.url)]
    error = await office.refused(account=new)
    assert (type(error), error.code) == (NotSent, "gateway_unaware")
    await smsc.until(lambda there: len(there.binds) == 2)  # a worker's asking was enough
    assert smsc.unbinds == 1
    assert b"n3w" in smsc.binds[1]
    assert await office.send(account=new)


async def test_two_accounts_of_one_login_are_told_apart_in_words(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    other = office.changed(gateway_secret="x" * 20)
    office.accounts.append(GatewayAccount(2, other, office.chaski.url))
    assert (await office.refused(account=other)).code == "gateway_unaware"
    await until(lambda: smsc.binds)
    async with asyncio.timeout(5):
        while (error := await office.refused(account=other)).code == "gateway_unaware":
            pass
    assert (type(error), error.code) == (NotSent, "login_shared")
    assert len(smsc.binds) == 1


async def test_what_is_not_signed_by_the_account_is_not_sent_out(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    await office.send()
    assert office.gateway
    key = GatewayAccount(1, office.settings, office.chaski.url).key
    headers = {"X-Chaski-Account": key, "X-Chaski-Signature": "0" * 64}
    said = await office.http.request("POST", f"{office.gateway.url}/submit", headers=headers, body=b"{}", timeout=5)
    assert said.status == 401
    assert len(smsc.submitted) == 1


async def test_several_binds_share_the_messages(gateway: Start, smsc: Smsc) -> None:
    office = await gateway(binds="2", window="1")
    await smsc.bound(2)
    smsc.on_submit = sides.silent
    sending = [asyncio.ensure_future(office.refused(seconds=1.0)) for _ in range(2)]
    await smsc.until(lambda there: len(there.submitted) == 2)
    await asyncio.gather(*sending)


async def test_health_tells_how_many_accounts_are_bound(gateway: Start, smsc: Smsc) -> None:
    office = await gateway()
    await office.send()
    assert office.gateway
    said = await office.http.request("GET", f"{office.gateway.url}/health", headers={}, timeout=5)
    assert (said.status, said.body) == (200, b'{"accounts": 1, "bound": 1}')


async def test_a_gateway_that_ends_answers_what_is_under_way_and_unbinds(smsc: Smsc, office: Office) -> None:
    smsc.on_submit = sides.silent
    async with running(office.read, patience=SHORT) as office.gateway:
        sending = asyncio.ensure_future(office.send())
        await smsc.until(lambda there: there.submitted)
        session = await smsc.bound()
        asyncio.get_running_loop().call_later(
            0.1, lambda: asyncio.ensure_future(sides.accepts(session, smsc.submitted[0]))
        )
    assert (await sending).provider_message_id == "id-1"
    assert smsc.unbinds == 1


async def test_a_gateway_that_ends_says_of_the_unanswered_that_they_are_in_doubt(smsc: Smsc, office: Office) -> None:
    smsc.on_submit = sides.silent
    async with running(office.read, patience=SHORT) as office.gateway:
        sending = asyncio.ensure_future(office.refused())
        await smsc.until(lambda there: there.submitted)
    assert type(await sending) is InDoubt


async def test_accounts_that_cannot_be_read_stay_as_they_were(smsc: Smsc, office: Office) -> None:
    given = iter([list(office.accounts), None])
    async with running(lambda: next(given, None), patience=SHORT, every=0.01) as office.gateway:
        await office.send()
        await until(lambda: next(given, "over") == "over")
        assert await office.send()
    assert len(smsc.binds) == 1
