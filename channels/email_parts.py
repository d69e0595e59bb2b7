"""A mail with files: its body and they as parts of a MIME message (RFC 2045, 2046, 2387). Used by ``email_message.compose``."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Sequence
from secrets import token_hex
from urllib.parse import quote

from channels.attachments import CONTENT_ID, Attachment
from channels.errors import ContentRefused

#: An attachment with its bytes.
File = tuple[Attachment, bytes]
#: What is said about a part, in whole lines, and the part itself.
Part = tuple[bytes, bytes]

_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,126}")
#: RFC 6266, appendix D, says what every reader of a quoted name gets right.
_PLAIN_NAME = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9._()+,=@-]+(?: [A-Za-z0-9._()+,=@-]+)*")
_BREAK = b"\r\n"
_LINE = 76


async def content_of(attachment: Attachment) -> bytes:
    """The bytes of a file that a mail carries. Raises a ``SendError``: a row may name one that is known by its URL alone."""
    if attachment.read is None:
        raise ContentRefused("file_by_url", "a mail carries the file itself, and this one is known by its URL alone")
    return await attachment.read()


def with_files(bodies: Sequence[Part], files: Sequence[File]) -> bytes:
    """The rest of a mail behind its own headers: ``bodies`` (text, HTML) with ``files``.

    Those with a content id go beside the HTML that shows them, the others behind everything.
    """
    inline = [_enclosed(file) for file in files if file[0].content_id]
    *before, last = bodies
    if inline:
        last = _multipart("related", [last, *inline])
    said = _multipart("alternative", [*before, last]) if before else last
    attached = [_enclosed(file) for file in files if not file[0].content_id]
    about, payload = _multipart("mixed", [said, *attached]) if attached else said
    return about + _BREAK + payload


def _multipart(kind: str, parts: Sequence[Part]) -> Part:
    boundary = f"==============={token_hex(16)}==".encode()
    about = b'Content-Type: multipart/%s; boundary="%s"' % (kind.encode(), boundary) + _BREAK
    opened = b"".join(b"--%s\r\n%s\r\n%s\r\n" % (boundary, said, payload) for said, payload in parts)
    return about, opened + b"--%s--\r\n" % boundary


def _enclosed(file: File) -> Part:
    attachment, content = file
    known = attachment.content_type if _TYPE.fullmatch(attachment.content_type) else "application/octet-stream"
    lines = [f"Content-Type: {known}", "Content-Transfer-Encoding: base64", *_disposition(attachment)]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii"), _base64(content)


def _disposition(attachment: Attachment) -> list[str]:
    shown = "inline" if attachment.content_id else "attachment"
    found = [f"Content-Disposition: {shown};\r\n {_filename(attachment.name)}"]
    if CONTENT_ID.fullmatch(attachment.content_id):
        found.append(f"Content-ID: <{attachment.content_id}>")
    return found


def _filename(name: str) -> str:
    """RFC 2231 for what is more than plain ASCII: nothing in a name can end its line."""
    return f'filename="{name}"' if _PLAIN_NAME.fullmatch(name) else f"filename*=utf-8''{quote(name, safe='')}"


def _base64(content: bytes) -> bytes:
    whole = b2a_base64(content, newline=False)
    return b"".join(whole[start : start + _LINE] + _BREAK for start in range(0, len(whole), _LINE))
