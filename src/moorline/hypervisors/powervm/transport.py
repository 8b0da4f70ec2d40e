"""The HTTPS beneath pypowervm: verified on every call, kept alive, deaf to the environment.

pypowervm 1.1.27 verifies the server at logon only. Every later call, the session
token included, goes out with ``verify=False`` over a new connection, and
``REQUESTS_CA_BUNDLE`` in the environment overrides whatever was set
(``Session.request`` and ``Session._logon`` in ``pypowervm/adapter.py``,
https://github.com/powervm/pypowervm).

All of it hangs on one name: that method calls ``requests.Session()``. We give it
a copy of its globals in which ``requests`` is a :class:`Transport`. The library
stays as it is for everybody else in the process; that is why it is pinned, and
why a test watches the connections.
"""

from __future__ import annotations

import logging
import ssl
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from types import FunctionType
from typing import Any

import requests
from pypowervm import adapter

from moorline.errors import Denied

_log = logging.getLogger(__name__)


class Transport:
    """Stands where the module ``requests`` was: one verified session for all calls."""

    def __init__(self, ca: Path | None) -> None:
        """*ca*: the authorities to trust; None: those of the system.

        Raises Denied if they cannot be read.
        """
        try:
            ssl.create_default_context(cafile=None if ca is None else str(ca))
        except OSError as error:
            raise Denied(f"the authorities in {ca} cannot be read: {error}") from error
        self._session = requests.Session()
        self._session.trust_env = False  # no proxies, no .netrc, no CA bundles from outside
        # pypowervm's own sessions live for one call, and so do their cookies.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._verify: str | bool = True if ca is None else str(ca)

    def Session(self) -> _Call:
        return _Call(self._session, self._verify)

    def close(self) -> None:
        self._session.close()


class _Call:
    """What pypowervm takes for a session of its own. It lives for one call."""

    def __init__(self, session: requests.Session, verify: str | bool) -> None:
        self._session = session
        self._verify = verify
        self.verify: object = None  # pypowervm sets it; it is ignored

    def request(self, method: str, url: str, **given: Any) -> requests.Response:
        _log.debug("asks NovaLink: %s %s", method, url)
        # A redirect would take the session token elsewhere.
        given.update(verify=self._verify, allow_redirects=False)
        response = self._session.request(method, url, **given)
        if response.encoding is None:
            response.encoding = "utf-8"  # guessing it from megabytes takes seconds
        return response

    def close(self) -> None:
        """The connection is kept."""


def session_class(transport: Transport) -> type[Any]:
    """Return pypowervm's ``Session`` with all its calls made through *transport*."""
    theirs = adapter.Session.request
    ours = FunctionType(
        theirs.__code__,
        {**vars(adapter), "requests": transport},
        theirs.__name__,
        theirs.__defaults__,
    )
    return type("VerifiedSession", (adapter.Session,), {"request": ours})
