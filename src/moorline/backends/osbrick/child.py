"""Runs os-brick: what the bridge calls in a process of its own, and nothing else imports.

As root, what os-brick does privileged is done in that process; otherwise through
oslo.privsep's helper, which sudo starts.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from os_brick import exception, privileged
from os_brick.initiator.connector import InitiatorConnector
from os_brick.privileged import rootwrap
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_privsep import priv_context
from oslo_utils import strutils

from moorline.backends.osbrick import connector as hyperscale
from moorline.errors import Busy, Failed, MoorlineError, Refused, Uncertain

HELD = 75
"""flock(1) exits so, as we ask it to, if the lock is held (EX_TEMPFAIL)."""
NOT_STARTED = 69
"""flock(1) exits so if the command cannot be started (EX_UNAVAILABLE)."""
_REFUSED = (
    exception.Invalid,
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
    with _told_apart(properties):
        connector = InitiatorConnector.factory(
            question["protocol"], "sudo", execute=_executor(question)
        )
        if question["do"] == "connect":
            return {"device": connector.connect_volume(properties)}
        if question["do"] == "disconnect":
            connector.disconnect_volume(properties, {"path": question["link"]})
            return {}
        return {"paths": list(connector.get_volume_paths(properties))}


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

    A command locks the hold for its own life, so that it is known to run still
    after all that started it was killed.
    """
    hold, deadline = question["hold"], question["deadline"]
    held = ("flock", "--no-fork", "--nonblock", "--conflict-exit-code", str(HELD), hold)

    def execute(*command: str, **options: Any) -> Any:
        options["timeout"] = min(options.get("timeout", deadline), deadline)
        options.setdefault("signal", signal.SIGKILL)
        if not hold:
            return rootwrap.execute(*command, **options)
        try:
            return rootwrap.execute(*held, *command, **options)
        except processutils.ProcessExecutionError as e:
            if e.exit_code == HELD:
                raise Busy(f"a command that holds {hold} still runs") from e
            if e.exit_code == NOT_STARTED:
                e.exit_code = "-"  # os-brick's own sign of a command that is not there
            raise

    return execute


@contextmanager
def _told_apart(properties: Mapping[str, Any]) -> Iterator[None]:
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
    except (KeyError, ValueError, TypeError) as e:
        raise Refused(f"os-brick cannot use the connection: {type(e).__name__} {says(e)}") from None
    except processutils.ProcessExecutionError as e:
        family = Uncertain if isinstance(e.exit_code, int) else Failed
        raise family(says(e)) from None
    except Exception as e:  # noqa: BLE001 - whatever os-brick raises, it may have happened
        raise Uncertain(f"{type(e).__name__}: {says(e)}") from None


def _masked(text: str, properties: Mapping[str, Any]) -> str:
    masked: str = strutils.mask_password(text)
    for key, value in properties.items():
        if "password" in key or "secret" in key:
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, str) and part:
                    masked = masked.replace(part, "***")
    return masked
