"""Calls the agent for Nova: retries while it restarts, and never beyond the caller's timeout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import MoorlineError, Unavailable, Uncertain
from moorline.local_api.client import Client
from moorline.model import DiskOptions, Level
from moorline_nova.pending import Use

_PAUSE_SECONDS = 0.5
"""Seconds between two looks whether the agent is back."""
_RESTART_SECONDS = 5.0
"""Seconds that an agent takes to be restarted."""
_STALE_SECONDS = 60.0
"""Seconds after which an agent that is missing again counts as missing anew."""
_MAX_LOSSES = 3
_ONE_TRY_SECONDS = 10.0
"""Seconds for telling the agent something that can be told later."""
_MARGIN_SECONDS = 5.0
"""Seconds that an agent is given, at most, to say why it did not finish in time."""
_NEVER = (float("-inf"), float("-inf"))
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Asked(Protocol[T_co]):
    """A call that may take *left* seconds."""

    def __call__(self, client: Client, left: float) -> T_co: ...


class Agent:
    """Asks the agent. Safe to use from several threads, and after a fork.

    All callers share the knowledge that the agent is missing: the time of a restart is waited
    once, not for each volume.
    """

    def __init__(
        self,
        socket: str,
        *,
        client: Callable[..., Client] = Client,
        clock: Clock = CLOCK,
    ) -> None:
        self._socket = socket
        self._client = client
        self._clock = clock
        self._missing = _NEVER
        """When the agent was first seen missing, and when last."""

    def attach(
        self, use: Use, connection: Mapping[str, Any], timeout: float, *, shared: bool
    ) -> Mapping[str, Any] | None:
        """Have the volume connected for the instance; return its disk source, as plain data.

        Blocks up to *timeout* seconds. Raises as :meth:`moorline.ports.api.Attachments.attach`.
        """
        outcome = self._persist(
            lambda client, left: client.attachments.attach(
                use.instance,
                connection,
                volume=use.volume,
                level=Level.CONNECTED,
                options=DiskOptions(shared=shared),
                hands_off=True,
                timeout=left - min(_MARGIN_SECONDS, left / 4),
            ),
            timeout,
        )
        return outcome.view.source

    def detach(self, use: Use, timeout: float) -> str:
        """Release the volume for the instance; return why only a person can disconnect it, or ''.

        Blocks up to *timeout* seconds.
        """
        return self._persist(lambda client, left: _detach(client, use), timeout) or ""

    def tell(self, use: Use) -> bool:
        """As :meth:`detach`, tried once; return whether there was anything to release."""
        return self._ask(lambda client: _detach(client, use), _ONE_TRY_SECONDS) is not None

    def uses(self) -> list[Use]:
        """All uses that the agent keeps, whoever asked for them, but those it is ending.

        Raises MoorlineError.
        """
        views = self._ask(lambda client: client.attachments.list(), 2 * _STALE_SECONDS)
        ended = str(Level.ABSENT)
        return [Use(view.guest_id, view.volume) for view in views if view.wanted != ended]

    def _persist(self, ask: Asked[T], timeout: float) -> T:
        """Call the agent; if it is lost during the call, wait for it and call again.

        The request may have been recorded by then, and Nova would not know. *ask* gets the
        seconds that are left. An agent that is not there at all is waited for while it may restart.
        """
        deadline = Deadline(timeout, self._clock)
        losses = 0
        while True:
            left = max(deadline.left(), _PAUSE_SECONDS)
            try:
                return self._ask(partial(ask, left=left), left)
            except Uncertain:
                losses += 1
                if losses > _MAX_LOSSES or deadline.left() < _PAUSE_SECONDS:
                    raise
            except Unavailable:
                since, now = self._missing
                restarts = losses or now - since <= _RESTART_SECONDS
                if not restarts or deadline.left() < _PAUSE_SECONDS:
                    raise
            deadline.sleep(_PAUSE_SECONDS)

    def _ask(self, ask: Callable[[Client], T], longest: float) -> T:
        try:
            answer = ask(self._client(self._socket, longest=longest))
        except Unavailable:
            self._missed()
            raise
        except MoorlineError:
            self._missing = _NEVER
            raise
        self._missing = _NEVER
        return answer

    def _missed(self) -> None:
        now = self._clock.now()
        first, last = self._missing
        self._missing = (first if now - last < _STALE_SECONDS else now, now)


def _detach(client: Client, use: Use) -> str | None:
    """As :meth:`Agent.detach`; None: there was nothing to release."""
    outcome = client.attachments.detach(use.instance, use.volume, hands_off=True)
    if outcome is None:
        return None
    return outcome.view.next.removeprefix("park: ") if outcome.view.seen == "foreign" else ""
