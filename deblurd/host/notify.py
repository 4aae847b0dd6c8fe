"""Telling the service manager how we are, by systemd's protocol; wherever nobody asks to be told, nothing happens."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Speaks to the manager that started this process.

    watchdog_s: it starts the process again when `alive` is not said for so long; None where it keeps no watchdog over this process.
    environ: what sd_notify(3) and sd_watchdog_enabled(3) read. Messages that cannot be delivered are lost: a scan matters more.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # a name that begins with @ is in Linux's abstract namespace
        self._address = "\0" + address[1:] if address.startswith("@") else address
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if address and for_us and usec.isdecimal() and int(usec) else None

    @property
    def is_heard(self) -> bool:
        """Whether there is a manager."""
        return bool(self._address)

    def ready(self) -> None:
        """Started, or done with reloading."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A new configuration is being looked at; `ready` ends it."""
        # the newest protocol asks for the moment, to tell this reload from an earlier one
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, sentence: str) -> None:
        """For people who ask the manager; one line."""
        self._send("STATUS=" + " ".join(sentence.split()))

    def alive(self) -> None:
        """Feeds the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            # a manager that does not read must not hold the scan up
            to.setblocking(False)
            to.sendto(message.encode(), self._address)
