"""Media ids: what a vendor calls a file that it keeps, so that it needs to be given it only once.

Used by providers that say ``Carriage.KEPT``. The delivery engine implements ``Keeper`` (``deliveries.delivery.media_ids``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

from channels.errors import SendError

T = TypeVar("T")

#: For one upload, from its first byte to the vendor's answer.
UPLOAD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MediaId:
    """What a vendor calls a file, and for how long from now on it surely knows it by that."""

    id: str
    lasts: timedelta


#: Gives one file to the vendor. Raises a ``SendError``: whichever it is, nothing of any message has left.
Upload = Callable[[], Awaitable[MediaId]]


class Keeper(Protocol):
    """The media id of one file at one account: looked up, obtained once for all messages that want it, and forgotten."""

    async def uploaded(self, upload: Upload) -> str:
        """The media id. Where none is known, one of all who ask uploads, and the others wait for that.

        Raises ``NotSent`` where it takes longer than this message can wait, and where the upload was in doubt: it harms
        nobody when it is repeated. The upload goes on for the others. What the vendor said of it is raised as it is.
        """
        ...

    def first(self) -> AbstractAsyncContextManager[str]:
        """For vendors that name a file in the answer to the first message with it: the media id, or empty: go first.

        Of those who would go first one does, and the others wait for the end of its block as long as they can.
        Raises ``NotSent`` while the database is away.
        """
        ...

    def learn(self, media: MediaId) -> None:
        """The vendor said what it calls the file. Never raises and never waits: it follows the acceptance of a message."""
        ...

    async def forget(self, media_id: str) -> bool:
        """The vendor does not know ``media_id`` (any more). May another be had?

        Not where it is but minutes old: then something else is wrong with the file, and the next would fare no better.
        Raises ``NotSent`` while the database is away.
        """
        ...


async def with_media_id(
    keeper: Keeper, upload: Upload, send: Callable[[str], Awaitable[T]], is_unknown: Callable[[SendError], bool]
) -> T:
    """What ``send`` gives for the file's media id.

    Where the vendor refuses the message because it does not know that id, it is sent once more with a new one. Raises a
    ``SendError``.
    """
    media_id = await keeper.uploaded(upload)
    try:
        return await send(media_id)
    except SendError as error:
        if not is_unknown(error) or not await keeper.forget(media_id):
            raise
    return await send(await keeper.uploaded(upload))
