"""Runs os-brick. It is called in a process of its own, and nothing else imports it.

As root, that process does os-brick's privileged work itself; otherwise oslo.privsep's helper
does, which sudo starts.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import os_brick  # noqa: F401 - only to say how it is installed
except ModuleNotFoundError as e:
    raise ModuleNotFoundError(f"{e} (pip install 'moorline[osbrick]')") from e

from os_brick import exception, privileged
from os_brick.initiator.connector import InitiatorConnector
from os_brick.privileged import rootwrap
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_privsep import priv_context
from oslo_utils import strutils

from moorline.backends.osbrick import hyperscale_connector as hyperscale
from moorline.backends.osbrick.protocols import LINKS
from moorline.deadline import Deadline
from moorline.errors import Busy, Failed, MoorlineError, Refused, Uncertain

EXIT_HELD = 75
"""Exit code of flock(1), as we ask it to, if the lock is held (EX_TEMPFAIL)."""
EXIT_NOT_STARTED = 69
"""Exit code of flock(1) if the command cannot be started (EX_UNAVAILABLE)."""
_SECRET = re.compile(r"passw|secret|token|_key\b")
BY_ID = Path("/dev/disk/by-id")
_BY_IDENTITY = ("dm-uuid-", "wwn-", "scsi-", "nvme-eui.", "nvme-nvme.", "nvme-uuid.")
"""How such names begin. Not ``dm-name-mpatha`` nor ``nvme-MODEL_SERIAL``: multipathd's alias and a
controller's name may be another volume's tomorrow."""
_UDEV_TIMEOUT_SECONDS = 10.0
"""Seconds that udev has to name a device."""
# Not exception.Invalid: os-brick raises it for an addressing mode, after an iSCSI login.
_REFUSED = (
    exception.InvalidConnectorProtocol,
    exception.ProtocolNotSupported,
    hyperscale.BadVolume,
    hyperscale.Collision,
)
_FAILED = (
    exception.NoFibreChannelHostsFound,
    hyperscale.CannotRun,
    hyperscale.CommandFailed,
)

hyperscale.register()


def answer(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """Answer ``{"do": "connect", "disconnect" or "paths", …}``; see ``OsBrick._call``."""
    _configure(question)
    properties = question["properties"]
    with told_apart(properties):
        connector = InitiatorConnector.factory(
            question["protocol"],
            "sudo",
            use_multipath=question["multipath"],
            execute=_executor(question),
        )
        link = Path(question["link"])
        if question["do"] == "connect":
            device = connector.connect_volume(properties)
            _link(link, Path(device["path"]), question["deadline"])
            return {"device": device}
        if question["do"] == "disconnect":
            connector.disconnect_volume(
                properties, {"type": "block", "path": os.path.realpath(link)}
            )
            _unlink(link)
            return {}
        return {"paths": list(connector.get_volume_paths(properties))}


def _link(link: Path, device: Path, patience: float) -> None:
    """Make *link* lead to *device* by a name of udev's that can never lead to another volume."""
    if device == link:
        return  # the protocol gives each volume a path of its own
    deadline = Deadline(min(patience / 2, _UDEV_TIMEOUT_SECONDS))
    while not (lasting := lasting_names(device)):
        if deadline.over():
            raise Uncertain(f"udev has made no name in {BY_ID} for {device}")
        deadline.sleep(0.05)
    rootwrap.execute("mkdir", "-p", "--", str(link.parent), run_as_root=True)
    rootwrap.link_root(str(lasting[0]), str(link), force=True)


def _unlink(link: Path) -> None:
    if link.is_symlink() and link.parent == LINKS:
        rootwrap.unlink_root(str(link))


def lasting_names(device: Path, directory: Path = BY_ID) -> list[Path]:
    """The names that udev gives *device* by its identity; those of multipath first."""
    real = device.resolve()
    names = [name for name in directory.glob("*") if name.resolve() == real]
    return [name for kind in _BY_IDENTITY for name in sorted(names) if name.name.startswith(kind)]


def _configure(question: Mapping[str, Any]) -> None:
    cfg.CONF.set_override("lock_path", question["locks"], "os_brick")
    if os.geteuid() == 0:
        privileged.default.set_client_mode(False)
        return
    if question["helper"]:
        section = privileged.default.cfg_section
        cfg.CONF.set_override("helper_command", question["helper"], section)
    priv_context.init(shlex.split("sudo --non-interactive"))


def _executor(question: Mapping[str, Any]) -> Callable[..., Any]:
    """os-brick's own, with our deadline, and the hold on each command.

    A command holds the lock as long as it lives. So it is known to run, even after the
    process that started it was killed.
    """
    hold, deadline = question["hold"], question["deadline"]
    held = ("flock", "--no-fork", "--nonblock", "--conflict-exit-code", str(EXIT_HELD), hold)

    def execute(*command: str, **options: Any) -> Any:
        # We are killed at the deadline. A command of the helper outlives us, for a bounded time.
        options["timeout"] = min(options.get("timeout", math.inf), deadline + 1)
        options.setdefault("signal", signal.SIGKILL)
        if not hold:
            return rootwrap.execute(*command, **options)
        try:
            return rootwrap.execute(*held, *command, **options)
        except processutils.ProcessExecutionError as e:
            if e.exit_code == EXIT_HELD:
                raise Busy(f"a command that holds {hold} still runs") from e
            if e.exit_code != EXIT_NOT_STARTED:
                raise
            raise processutils.ProcessExecutionError(description=e.stderr) from FileNotFoundError()

    return execute


@contextmanager
def told_apart(properties: Mapping[str, Any]) -> Iterator[None]:
    """Turn os-brick's errors into ours, without the secrets of the connection."""

    def says(e: Exception) -> str:
        return _masked(" ".join(str(e).split())[:500], properties)

    try:
        yield
    except MoorlineError:
        raise
    except hyperscale.Rejected as e:
        bad = e.code in (hyperscale.BAD_PARAMETER, hyperscale.BAD_MESSAGE)
        raise (Refused if bad else Failed)(says(e)) from None
    except _REFUSED as e:
        raise Refused(says(e)) from None
    except _FAILED as e:
        raise Failed(says(e)) from None
    except hyperscale.HyperScaleError as e:
        raise Uncertain(says(e)) from None
    except exception.ExecutionTimeout as e:
        raise Uncertain(says(e)) from None
    except processutils.ProcessExecutionError as e:
        family = Failed if hyperscale.not_started(e) else Uncertain
        raise family(says(e)) from None
    except Exception as e:  # noqa: BLE001 - os-brick may raise anything after its effect
        raise Uncertain(f"{type(e).__name__}: {says(e)}") from None


def _masked(text: str, properties: Mapping[str, Any]) -> str:
    masked: str = strutils.mask_password(text)
    for key, value in properties.items():
        if _SECRET.search(key):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, str) and part:
                    masked = masked.replace(part, "***")
    return masked
