"""One long-lived HTTP/2 connection: many requests at once, and of each one whether its last byte had left.

Called by ``channels.http2``. The protocol is h2's; nothing of an answer is believed before its last byte is there. Why this is
our own: docs/adr/0022.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import NeverIndexedHeaderTuple

from channels.http2_frames import Frames, Goaway
from channels.http2_stream import Stream, Unprocessed
from channels.http_wire import BODY_LIMIT, HEAD_LIMIT, NotHttp, hung_up

#: Azure's address translation forgets a connection that was silent for 240 s, Amazon's after 350 s; neither tells us.
IDLE_SECONDS = 180.0
#: After so many requests a connection is replaced: its numbers have an end, and a vendor's new servers want their share.
REQUESTS_LIMIT = 1_000_000
#: For a peer that reads nothing: more than all requests of a window together.
_UNREAD_LIMIT = 4 * 1024 * 1024


class NoHttp2(OSError):
    """The connection is there, but its other end speaks another protocol."""


class Http2Wire(asyncio.Protocol):
    """A connection that carries as many requests at once as the server allows. Belongs to its loop.

    ``told`` is called whenever it may have room that it had not, or is over.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        self._transport: asyncio.Transport | None = None
        self._h2 = _client()
        self._frames = Frames()
        self._streams: dict[int, Stream] = {}
        self._begun = 0
        self._usable = False
        self._settled: asyncio.Future[None] = self._loop.create_future()
        #: Something changed for those who wait until they may write on.
        self._moved = asyncio.Event()
        self._heard_at = 0.0
        self._idle: asyncio.TimerHandle | None = None

    # -- for the client

    @property
    def over(self) -> bool:
        """Will it carry no further request? Its last answers may be still to come."""
        return not self._usable or hung_up(self._transport)

    @property
    def ended(self) -> bool:
        """Is it closed?"""
        return self._transport is None or self._transport.is_closing()

    @property
    def room(self) -> bool:
        """May another request begin now?"""
        limit = self._h2.remote_settings.max_concurrent_streams
        return self._usable and len(self._streams) < limit and not hung_up(self._transport)

    async def ready(self) -> None:
        """Wait for the server's settings, which it sends first of all. Raises ``OSError`` where none come."""
        await self._settled

    def begin(self, head: Mapping[str, str], body: bytes) -> Stream:
        """Start a request, of which ``hand_over`` writes the body. ``room`` must be true at this moment."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        stream = Stream(self._h2.get_next_available_stream_id(), body, self._loop.time(), self._loop.create_future())
        # Each is one person's or one moment's: a server that kept them in its table would keep them in vain.
        self._h2.send_headers(stream.id, [NeverIndexedHeaderTuple(*row) for row in head.items()], end_stream=not body)
        self._streams[stream.id] = stream
        self._begun += 1
        if self._begun >= REQUESTS_LIMIT:
            self._usable = False
        return stream

    async def hand_over(self, stream: Stream) -> bool:
        """Hand all of the request to the network, as fast as the server takes it; False where its answer was quicker."""
        while not self._push(stream):
            if stream.answer.done():
                return False
            self._moved.clear()
            await self._moved.wait()
        return True

    def leave(self, stream: Stream) -> None:
        """Nobody waits for this answer any more."""
        if self._streams.pop(stream.id, None) is None:
            return
        stream.answer.cancel()
        now = self._loop.time()
        if now - self._heard_at > (now - stream.begun_at) / 2:
            self._usable = False  # nothing at all was heard for half of its time: the connection may be dead
        self._reset(stream)
        self._freed()

    def retire(self) -> None:
        """Begin no further request on it; it ends with the last answer."""
        self._usable = False
        self._freed()

    def end(self, error: Exception) -> None:
        """End it now; who waits for an answer gets ``error``."""
        self._usable = False
        if self._idle is not None:
            self._idle.cancel()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.fail(error)
        if not self._settled.done():
            self._settled.set_exception(error if isinstance(error, OSError) else NoHttp2(str(error)))
            self._settled.exception()  # nobody may be waiting
        if self._transport is not None and not self.ended:
            self._transport.write(self._h2.data_to_send())
            self._transport.abort()
        self._changed()

    def _push(self, stream: Stream) -> bool:
        """As much of the body as the server's windows allow; is all of it out?"""
        while stream.id in self._streams and stream.rest:
            room = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
            if room <= 0:
                break
            piece, stream.rest = stream.rest[:room], stream.rest[room:]
            self._h2.send_data(stream.id, piece, end_stream=not stream.rest)
        self._flush()
        return not stream.rest

    def _reset(self, stream: Stream) -> None:
        """Tell the server that we want no more of it."""
        self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
        self._flush()

    def _freed(self) -> None:
        """A request less is under way, or none may follow."""
        if not self._streams and not self._usable:
            self._say_good_bye()
        elif not self._streams and self._idle is None:
            self._idle = self._loop.call_later(IDLE_SECONDS, self._say_good_bye)
        self._changed()

    def _say_good_bye(self) -> None:
        if self._transport is not None and not self.ended:
            self._h2.close_connection()
        self.end(ConnectionResetError("closed by us"))

    def _changed(self) -> None:
        self._moved.set()
        self._told()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > _UNREAD_LIMIT:
                self.end(ConnectionResetError("the peer reads nothing"))

    # -- for the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        secured = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() != "h2":
            self.end(NoHttp2("the server did not choose h2"))
            return
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for part in self._frames.of(data):
                if isinstance(part, Goaway):
                    self._go_away(part)
                else:
                    for event in self._h2.receive_data(part):
                        self._heard(event)
        except NotHttp as error:
            self.end(error)
        except ProtocolError as error:
            self.end(NotHttp(type(error).__name__))  # its text may hold what came
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc if isinstance(exc, OSError) else ConnectionResetError("the connection ended"))
        self._transport = None

    # -- for what was heard

    def _heard(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._settle()
        elif isinstance(event, WindowUpdated):
            self._moved.set()
        elif isinstance(event, ResponseReceived | DataReceived | StreamEnded | StreamReset):
            stream = self._streams.get(event.stream_id or 0)
            if stream is not None:
                self._heard_of(stream, event)

    def _heard_of(self, stream: Stream, event: ResponseReceived | DataReceived | StreamEnded | StreamReset) -> None:
        if isinstance(event, ResponseReceived):
            stream.read_head(event.headers or ())
        elif isinstance(event, DataReceived):
            stream.body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, stream.id)
            if len(stream.body) >= BODY_LIMIT:
                self._complete(stream)
                self._reset(stream)  # the rest is not wanted
        elif isinstance(event, StreamEnded):
            self._complete(stream)
            if stream.rest:
                self._reset(stream)
        else:
            self._refused(stream, event)

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)
            self._usable = True
            self._idle = self._loop.call_later(IDLE_SECONDS, self._say_good_bye)
        self._changed()

    def _complete(self, stream: Stream) -> None:
        del self._streams[stream.id]
        stream.complete()
        self._freed()

    def _refused(self, stream: Stream, event: StreamReset) -> None:
        del self._streams[stream.id]
        if event.error_code == ErrorCodes.REFUSED_STREAM:
            stream.fail(Unprocessed("refused_stream", "the server says that it has not processed the request"))
        else:
            stream.fail(ConnectionResetError(f"the server gave the request up (code {int(event.error_code or 0)})"))
        self._freed()

    def _go_away(self, told: Goaway) -> None:
        """The server will end the connection, and acts on no request after the last that it names."""
        self._usable = False
        for stream in [each for each in self._streams.values() if each.id > told.last]:
            del self._streams[stream.id]
            stream.fail(Unprocessed("goaway", f"the server ends the connection (code {told.code}) and has not read it"))
        self._freed()


def _client() -> H2Connection:
    made = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    wanted = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_LIMIT}
    made.local_settings = Settings(client=True, initial_values=wanted)
    return made
