"""Notifies systemd of the service's state (sd_notify(3)), if systemd listens."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


class Notifier:
    """Notifies the service manager that started us. Our children cannot."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = os.environ.pop("WATCHDOG_USEC", "0")
        for_us = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(usec) / 1e6 if for_us and usec.isdigit() else 0.0
        """Seconds without a sign of life after which we are killed; 0: never."""

    def tell(self, *states: str) -> None:
        """Send ``READY=1`` and the like. What cannot be sent is lost."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.sendto("\n".join(states).encode(), self._address)
