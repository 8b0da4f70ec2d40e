"""Answers a browser: pages, and what they are drawn with. Nothing that it is sent changes anything.

What is shown has names in it that others chose, of guests and volumes. They are escaped wherever
they go, and should that fail, the policy in :data:`HEADERS` lets no script run but ours.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
import traceback
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moorline import redaction
from moorline.local_api.app import Answer, Request
from moorline.ui.asked import CHIPS, TABLES, Asked
from moorline.ui.board import Board, board
from moorline.ui.watch import Picture, Watch

METHODS = ("GET", "HEAD")
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
"""Who we are to a browser. Another site whose name leads here sends its own name."""
_FILES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HTML = "text/html; charset=utf-8"
_LOG = logging.getLogger("moorline.page")


def visible(value: object) -> object:
    """*value* as text in which nothing is hidden. What is markup of our own stays as it is."""
    return value if isinstance(value, Markup) else redaction.visible(str(value))


def moment(seconds: float) -> Markup:
    """A time as an element that tells of its age."""
    when = datetime.fromtimestamp(seconds)
    told = when.strftime("%H:%M:%S")
    if when.date() != datetime.now().date():
        told = when.strftime("%Y-%m-%d %H:%M")
    return Markup('<time datetime="{}" data-at="{}">{}</time>').format(
        when.isoformat(timespec="seconds"), int(seconds), told
    )


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("moorline.ui"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["moment"] = moment
    made.globals["CHIPS"] = CHIPS
    return made


class Page:
    """The page of one host; see :class:`moorline.local_api.app.Answering`.

    *about*: ``host``, ``hypervisor``, ``version``. *token*: what its address begins with, so that
    only those find it who were told; '': whoever can connect may look.
    """

    def __init__(self, watch: Watch, about: Mapping[str, Any], token: str = "") -> None:
        self._watch = watch
        self._about = {name: str(about.get(name, "")) for name in ("host", "hypervisor", "version")}
        self._token = token
        self._drawn: tuple[Picture, Board] = Picture(), Board()

    def answer(self, request: Request) -> Answer:
        """Answer a request. Never raises."""
        if request.method not in METHODS:
            return _plain(405, "this page only shows: it takes GET", allow=", ".join(METHODS))
        if not _HOST.fullmatch(request.host):
            return _plain(421, "no such page: it is asked for as localhost")
        try:
            return self._answer(request.target)
        except Exception as e:  # noqa: BLE001 - a defect: the browser must be told
            frames = "".join(traceback.format_tb(e.__traceback__))
            _LOG.error("a defect of the page: %s\n%s", type(e).__name__, frames)
            return _plain(500, "a defect of the page: the log has more")

    def _answer(self, target: str) -> Answer:
        try:
            url = urlsplit(target)
        except ValueError:
            return _plain(400, "this is no address")
        name = self._name(url.path)
        if name in _FILES:
            return _answer(200, _file(name), _FILES[name])
        if name not in ("", "now"):
            return _plain(404, "there is nothing of that name")
        template = "page.html" if name == "" else "now.html"
        return _answer(200, self._draw(template, Asked.of(url.query)), _HTML)

    def _name(self, path: str) -> str | None:
        """What is asked for of this page; None: that is not known, or not whose page it is."""
        _, begins, rest = path.partition("/")
        if begins and self._token:
            token, begins, rest = rest.partition("/")
            # Compared in a time that does not tell how much of it is right.
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                return None
        return rest if begins else None

    def _draw(self, template: str, asked: Asked) -> bytes:
        picture = self._watch.picture()
        shown = asked.narrowed(self._board(picture))
        rows = (shown.findings, shown.waiting, shown.links, shown.guests, shown.disks, shown.events)
        text: str = (
            _templates()
            .get_template(template)
            .render(
                about=self._about,
                asked=asked,
                now=time.time(),
                picture=picture,
                tally=shown.tally,
                parts={name: asked.part(name, its) for name, its in zip(TABLES, rows, strict=True)},
            )
        )
        return text.encode("utf-8", "replace")

    def _board(self, picture: Picture) -> Board:
        """Draw *picture*, unless nothing was told since the last time."""
        before, drawn = self._drawn
        values = [
            (getattr(before, name).value, getattr(picture, name).value)
            for name in ("attachments", "guests", "disks", "doctor", "events")
        ]
        if any(one is not other for one, other in values) or before.guests.at == 0.0:
            drawn = board(picture)
            self._drawn = picture, drawn
        return drawn


@cache
def _file(name: str) -> bytes:
    return (resources.files("moorline.ui") / "static" / name).read_bytes()


def _plain(status: int, text: str, *, allow: str = "") -> Answer:
    return _answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8", allow)


def _answer(status: int, body: bytes, kind: str, allow: str = "") -> Answer:
    headers = {**HEADERS, "Content-Length": str(len(body))}
    return Answer(status, iter([body]), kind, allow, headers)
