"""ui: the command that serves the page."""

from __future__ import annotations

import queue
import signal
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import click

from moorline.cli.common import Common, common
from moorline.cli.name_completion import FilePath
from moorline.cli.status import who
from moorline.local_api.server import Server
from moorline.ports.api import Api

DEFAULT_ADDRESS = "127.0.0.1:9878"


@click.command()
@click.option(
    "--listen",
    "address",
    metavar="127.0.0.1:PORT",
    help="Where the page is, on this machine alone; port 0: a free one."
    f" Default: {DEFAULT_ADDRESS}.",
)
@click.option(
    "--socket",
    type=FilePath(),
    metavar="PATH",
    help="Serve on a Unix socket instead, for a reverse proxy: whoever may open it may look.",
)
@click.option("--group", default="", metavar="GROUP", help="Who may open that socket besides you.")
@common
def ui(given: Common, address: str | None, socket: Path | None, group: str) -> None:
    """Serve a page that shows this host in a browser, and changes nothing.

    Shares and who hangs on them, guests, volumes, what waits and why, what doctor
    finds with the command that mends it, and events as they happen. The address
    has a secret in it: whoever has it may look, until this ends (Ctrl+C).

    \b
    Examples:
      moorline ui
      moorline ui --listen 127.0.0.1:0
      moorline ui --socket /run/moorline-page.sock --group www-data
    """
    if socket and address:
        raise click.UsageError("--listen and --socket exclude each other")
    if group and not socket:
        raise click.UsageError("--group is of --socket")
    with given.open(own=False) as moorline:
        server, where = _serve(given, moorline, address or DEFAULT_ADDRESS, socket, group)
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: ended.put(number))
        server.start()
        given.tell({"url" if socket is None else "socket": where}, where)
        may = "may open this socket" if socket else "has this address"
        given.warn(f"whoever {may} may look, until this command ends (Ctrl+C)")
        _wait_for(ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Python takes its own handlers away when it ends, and the second of two would kill it.
            signal.signal(number, signal.SIG_IGN)
        server.stop()
        if socket:
            with suppress(OSError):
                socket.unlink()


def _wait_for(ended: queue.SimpleQueue[int]) -> None:
    """Return after a signal. One that another thread is given does not wake a wait without end."""
    while True:
        with suppress(queue.Empty):
            ended.get(timeout=0.5)
            return


def _serve(
    given: Common, moorline: Api, address: str, socket: Path | None, group: str
) -> tuple[Server, str]:
    """The server, not started, and where it will be found."""
    from moorline.ui import serve  # it needs a library that the other commands do without

    about = {**who(given, moorline), "version": version("moorline")}
    if socket:
        return serve.on_socket(moorline, about, socket, group), str(socket)
    return serve.on_loopback(moorline, about, address)
