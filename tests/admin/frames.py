"""What a page of the admin would run or load, read from its HTML. Used by the admin's tests."""

from __future__ import annotations

from html.parser import HTMLParser


class Frames(HTMLParser):
    """The iframes of a page, and whatever runs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.frames: list[dict[str, str | None]] = []
        self.runs: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "iframe":
            self.frames.append(found)
        if tag == "script" and not (found.get("src") or "").startswith(("/static/", "/admin/")):
            self.runs.append(str(found))
        self.runs += [name for name in found if name.startswith("on")]
        targets = (found.get(name) or "" for name in ("href", "src", "action", "formaction"))
        self.runs += [value for value in targets if value.strip().lower().startswith("javascript:")]
