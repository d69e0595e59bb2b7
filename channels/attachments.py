"""Files that go with a message, and what a provider says about those that it takes.

Used by intake (``Takes.fault``, at the door), by the delivery engine, which makes the attachments of a call, and by providers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from channels.kept import Keeper

#: Gives a file's bytes. Raises ``NotSent`` where they cannot be had now, ``ContentRefused`` where there are none any more.
Read = Callable[[], Awaitable[bytes]]
#: What can stand in a header as it is, and in the ``cid:`` of a mail's HTML.
CONTENT_ID = re.compile(r"[A-Za-z0-9._@+-]{1,128}")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


class Kind(StrEnum):
    """What vendors tell apart: each has its own field and limit for it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"


class Carriage(StrEnum):
    """How a vendor comes by a file: it is part of what is sent, or the vendor fetches it from a URL for each message, or it
    is given it once and keeps it."""

    ENCLOSED = "enclosed"
    FETCHED = "fetched"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of a message.

    ``url`` is where a vendor can fetch it: the one that the service gave, or a signed one of ours, which works for days.
    ``read`` is None, and ``size`` too (bytes), for what is known by a URL of the service alone. ``content_id`` is the name by
    which the HTML of a mail shows it (``cid:``), empty for what is only attached. ``file_id`` is ours, None like ``read``.
    ``keeper`` knows what the vendor calls the file; None where that is not to be used, and the vendor fetches it.
    """

    name: str
    content_type: str
    url: str
    size: int | None = None
    content_id: str = ""
    read: Read | None = field(default=None, compare=False)
    file_id: UUID | None = None
    keeper: Keeper | None = field(default=None, compare=False)

    @property
    def kind(self) -> Kind:
        """By the media type; an image that browsers and phones do not all show is a document."""
        main = self.content_type.partition("/")[0]
        if main == "image":
            return Kind.IMAGE if self.content_type in _IMAGES else Kind.DOCUMENT
        return Kind(main) if main in (Kind.VIDEO, Kind.AUDIO) else Kind.DOCUMENT


@dataclass(frozen=True, slots=True)
class Takes:
    """What one message of a provider may carry: so many files, of these kinds up to so many bytes each, and in all."""

    carriage: Carriage
    count: int
    bytes_of: Mapping[Kind, int]
    total_bytes: int = 25_000_000

    def fault(self, attachments: Sequence[Attachment]) -> str:
        """Why they cannot go with one message, and what to do about it; empty where they can."""
        if len(attachments) > self.count:
            files = "file" if self.count == 1 else "files"
            return f"has {len(attachments)} files; one message here carries at most {self.count} {files}"
        faults = (self._fault_of(attachment) for attachment in attachments)
        return next(filter(None, faults), "") or self._too_much(attachments)

    def _fault_of(self, attachment: Attachment) -> str:
        name, kind = attachment.name, attachment.kind
        limit = self.bytes_of.get(kind)
        if limit is None:
            known = ", ".join(self.bytes_of)
            return f"holds {name!r} ({attachment.content_type}), which is no {known}: this provider takes nothing else"
        if self.carriage is Carriage.ENCLOSED and attachment.read is None:
            return f"names {name!r} by a URL, and the file itself goes with a message here; send it to /api/v1/files"
        if attachment.content_id and self.carriage is not Carriage.ENCLOSED:
            return f"gives {name!r} a content_id, which only the HTML of a mail can show; leave it out"
        if attachment.size is not None and attachment.size > limit:
            return f"holds {name!r} of {attachment.size:,} bytes; an attached {kind} may have at most {limit:,}"
        return ""

    def _too_much(self, attachments: Sequence[Attachment]) -> str:
        total = sum(attachment.size or 0 for attachment in attachments)
        return f"has {total:,} bytes in all; at most {self.total_bytes:,} are taken" if total > self.total_bytes else ""
