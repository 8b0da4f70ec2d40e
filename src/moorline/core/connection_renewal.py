"""Asks a volume service anew for connections with which no link is made: they may have changed.

Portals and passwords change, and who had a volume attached by its name knows neither. The one that
is recorded stays until the new one has linked the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moorline.core.admission import Admission
from moorline.core.backoff import backoff
from moorline.core.driver import Driver
from moorline.core.records import Records
from moorline.core.reservations import Reservations
from moorline.deadline import CLOCK, Clock, Deadline
from moorline.errors import Busy, MoorlineError
from moorline.model import Attachment, GuestName, Key, Level

FIRST_SECONDS, LONGEST_SECONDS = 60.0, 3600.0
"""Between two questions for one connection: the service asks its storage for each answer."""
_LINK_SECONDS = 30.0
"""How long the new connection is tried."""


class ConnectionRenewer:
    """Renews connections, seldom. For one thread at a time."""

    def __init__(
        self,
        records: Records,
        reservations: Reservations,
        admission: Admission,
        driver: Driver,
        clock: Clock = CLOCK,
    ) -> None:
        self._records = records
        self._reservations = reservations
        self._admission = admission
        self._driver = driver
        self._clock = clock
        self._asked: dict[Key, tuple[int, Deadline]] = {}
        """How often was asked for it in vain, and until when it is not asked again."""

    def renew_all(self, keys: Iterable[Key], failed: Callable[[Key, str], None]) -> bool:
        """Renew each of *keys* that is due: a volume is to come, and nothing hangs on its link.

        A trouble says only that it is worth looking; the look decides. *failed* is told what could
        not be asked, or does not work either, and why. Return whether any was renewed. Raises what
        the store does.
        """
        rows = [self._records.get(key) for key in keys]
        due = [row for row in rows if row and row.want > Level.ABSENT and self._is_stuck(row.key)]
        now = Deadline(0.0, self._clock)
        self._asked = {row.key: self._asked.get(row.key, (0, now)) for row in due}
        renewed = False
        for row in due:
            tries, pausing = self._asked[row.key]
            if not pausing.over():
                continue
            pause = backoff(tries, first=FIRST_SECONDS, longest=LONGEST_SECONDS)
            self._asked[row.key] = tries + 1, now.anew(pause)
            try:
                with self._reservations.hold(row.key, 0.0):
                    renewed |= self._renew(row)
            except Busy:
                pass
            except MoorlineError as e:
                failed(row.key, str(e))
        return renewed

    def _is_stuck(self, key: Key) -> bool:
        return self._records.trouble(key) is not None

    def _renew(self, row: Attachment) -> bool:
        given = self._reservations.changed_connection(row)
        if given is None:
            return False
        before, attachment = self._admission.make(
            GuestName(row.key.guest, row.guest_name),
            given,
            None,
            row.key.volume,
            row.want,
            row.options,
            label=row.label,
        )
        if before is None or before.want is Level.ABSENT or before == attachment:
            return False  # it was taken back meanwhile, or is no other
        deadline = Deadline(_LINK_SECONDS)
        with self._driver.claim(attachment):
            done = self._driver.record(before, attachment, deadline, persistent=False)
            self._driver.push(done)
        return True
