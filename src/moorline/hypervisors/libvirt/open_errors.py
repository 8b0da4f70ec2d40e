"""Says why QEMU could not open a file, where its own words do not: another key, or AppArmor.

libvirt gives each guest a profile of its own, which allows the files that its definition names
(https://libvirt.org/drvqemu.html#apparmor-svirt). The kernel logs what it denies a profile
(https://gitlab.com/apparmor/apparmor/-/wikis/AppArmor_Failures), unless one of its rules says
``deny``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from moorline.errors import MoorlineError
from moorline.hypervisors.libvirt.connection import Connection
from moorline.hypervisors.libvirt.luks_keys import demand_right_key
from moorline.model import GuestId

KERNEL_LOG = Path("/dev/kmsg")
"""A read returns one record (Documentation/ABI/testing/dev-kmsg). Root alone may read it."""
_RECORD_BYTES = 8192
_DENIED = re.compile(
    r'apparmor="DENIED" .*?profile="(?P<profile>[^"]*)"'
    r' name=(?:"(?P<name>[^"]*)"|(?P<hex>[0-9A-F]+)) .*?denied_mask="(?P<mask>[a-z]*)"'
)
_PERMISSION = ("Permission denied", "Operation not permitted")
_RULES = "/etc/apparmor.d/local/abstractions/libvirt-qemu"


class Denial(NamedTuple):
    """What AppArmor did not allow a profile."""

    path: str
    mask: str
    """What was asked for beyond what is allowed, in AppArmor's letters: ``r``, ``w``, ``k``."""

    def rule(self, written: str = "") -> str:
        """What allows it. *written*: the file that QEMU will write to; it asks to read first."""
        path = f'"{self.path}"' if re.search(r"\s", self.path) else self.path
        return f"{path} {'rwk' if 'w' in self.mask or self.path == written else 'rk'},"


class _Confined(NamedTuple):
    name: str
    model: str
    """``apparmor`` or ``selinux``; '': nothing tells that the guest is confined."""
    profile: str


def raise_if_known(
    connection: Connection,
    guest: GuestId,
    of: Callable[[Any, GuestId], Any],
    whose: str,
    error: MoorlineError,
    written: str = "",
    log: Path = KERNEL_LOG,
) -> None:
    """Raise *error* anew if more is known of it. *whose*: the disks; *of*: as :meth:`Handles.of`.

    *written*: as in :meth:`Denial.rule`. Raises Refused (the key of an image is another), or as
    *error* is, which says that it was AppArmor, what it denied, and by which rule it would not.
    """
    demand_right_key(whose, error)
    if not any(words in error.message for words in _PERMISSION):
        return
    confined = _Confined("", "", "")
    with suppress(MoorlineError):  # it stays as it was told
        confined = connection.look(guest, lambda virt: _confined(of(virt, guest)))
    if confined.model == "selinux":
        raise type(error)(error.message, hint="what SELinux denied: ausearch -m avc -ts recent")
    if denied := list(denials(confined.profile, log)):
        last = denied[-1]
        what = f"AppArmor denies {confined.name} {last.path} ({error.message})"
        raise type(error)(what, hint=_cure(confined.profile, last.rule(written))) from error
    if confined.model:
        raise type(error)(
            f"{error.message}; AppArmor confines {confined.name} as {confined.profile}",
            hint="what it denied, unless a rule says deny: journalctl -k --grep 'apparmor=.DENIED'",
        ) from error


def denials(profile: str, log: Path = KERNEL_LOG) -> Iterator[Denial]:
    """What was denied to *profile*, the last at the end; nothing if that cannot be read."""
    for line in _lines(log):
        found = _DENIED.search(line)
        if found and found["profile"] == profile:
            name = found["name"] or bytes.fromhex(found["hex"] or "").decode(errors="replace")
            if name.isprintable():  # else no rule of one line names it
                yield Denial(name, found["mask"])


def _lines(log: Path) -> Iterator[str]:
    with suppress(OSError):
        file = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while True:
                try:
                    record = os.read(file, _RECORD_BYTES)
                except BrokenPipeError:
                    continue  # what was to be read was overwritten meanwhile: the next one is
                if not record:
                    return
                yield from record.decode(errors="replace").splitlines()
        finally:
            os.close(file)


def _confined(domain: Any) -> _Confined:
    """How a guest is confined. One that does not run does not tell, unless a person has said it."""
    xml = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt's own output
    # So libvirt calls it, whatever the definition says (get_profile_name in security_apparmor.c).
    name, profile = xml.findtext("name", ""), f"libvirt-{xml.findtext('uuid', '')}"
    for model in ("apparmor", "selinux"):
        label = xml.find(f"seclabel[@model='{model}']")
        if label is not None and label.get("type") != "none":
            return _Confined(name, model, profile)
    return _Confined(name, "", profile)


def _cure(profile: str, rule: str) -> str:
    load = f"apparmor_parser -r /etc/apparmor.d/libvirt/{profile}"
    return f"add `{rule}` to {_RULES}, and while it runs: {load}"
