"""Translates pyVmomi's errors into Moorline's, by class, never by text."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from xml.parsers.expat import ExpatError

from pyVmomi import vim, vmodl

from moorline.errors import (
    Busy,
    Conflict,
    Denied,
    Failed,
    MoorlineError,
    NotFound,
    Refused,
    Unavailable,
    Uncertain,
)

FAULTS = (vmodl.MethodFault,)
"""Faults that vCenter answers."""
BREAKS = (OSError, HTTPException, ExpatError)
"""Errors of a connection on which no answer came."""
ERRORS = FAULTS + BREAKS

_FAMILIES: Sequence[tuple[type[MoorlineError], tuple[type[Exception], ...]]] = (
    (Denied, (vim.fault.InvalidLogin, vim.fault.NotAuthenticated, vim.fault.NoPermission)),
    # The task or the call was rejected before it began.
    (Busy, (vim.fault.TaskInProgress, vim.fault.ResourceInUse, vim.fault.FileLocked)),
    (Conflict, (vim.fault.ConcurrentAccess,)),
    (NotFound, (vmodl.fault.ManagedObjectNotFound, vim.fault.NotFound)),
    # It may still go on behind the answer.
    (
        Uncertain,
        (
            vmodl.fault.HostCommunication,
            vmodl.fault.RequestCanceled,
            vmodl.fault.SystemError,
            vim.fault.Timedout,
            vim.fault.GenericVmConfigFault,
        ),
    ),
    # Another moment may be better for the same request.
    (
        Failed,
        (
            vim.fault.InvalidState,
            vim.fault.NoDiskSpace,
            vim.fault.InsufficientResourcesFault,
            vim.fault.CannotAccessFile,
        ),
    ),
    (
        Refused,
        (
            vmodl.fault.InvalidArgument,
            vmodl.fault.NotSupported,
            vmodl.fault.NotImplemented,
            vim.fault.InvalidName,
            vim.fault.DuplicateName,
            vim.fault.InvalidDatastore,
            vim.fault.VmConfigFault,
            vim.fault.FileFault,
        ),
    ),
)
"""The first that fits counts: a missing file is Refused, a locked one Busy."""


def failure(what: str, error: BaseException, *, sent: bool) -> MoorlineError:
    """Our error for *error*, by whether it may have happened. *sent*: a change was sent.

    A fault of a class that is not known counts as Failed if nothing was asked
    to change, and as Uncertain otherwise.
    """
    message = f"{what}: {words(error)}"
    if isinstance(error, BREAKS) and not isinstance(error, FAULTS):
        return _break(message, error, sent=sent)
    for family, classes in _FAMILIES:
        if isinstance(error, classes):
            if family is Uncertain and not sent:
                return Unavailable(message)
            return family(message)
    return Uncertain(message) if sent else Failed(message)


_TELLING = ("invalidProperty", "reason")
"""Fields of faults without which their texts mean little, such as "A specified parameter was
not correct"."""


def words(error: BaseException) -> str:
    """What vCenter says, in its own words, the details included."""
    if not isinstance(error, FAULTS):
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    fault: Any = error
    said = [fault.msg or type(error).__name__.rpartition(".")[2]]
    said += [f"{name} {value}" for name in _TELLING if (value := getattr(fault, name, None))]
    said += [detail.message for detail in fault.faultMessage or [] if detail.message]
    if fault.faultCause is not None and fault.faultCause.msg:
        said.append(fault.faultCause.msg)
    return "vCenter says: " + "; ".join(dict.fromkeys(said))


def _break(message: str, error: BaseException, *, sent: bool) -> MoorlineError:
    if isinstance(error, ssl.SSLCertVerificationError):
        # The connection ended before anything was said on it.
        return Unavailable(message, hint="set vcenter_ca or vcenter_thumbprint in [vsphere]")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(message)
    return Uncertain(message) if sent else Unavailable(message)
