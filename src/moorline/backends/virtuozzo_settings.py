"""Turns the operator's options for mounting Virtuozzo Storage into arguments."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Sequence
from dataclasses import dataclass

from moorline.errors import Refused
from moorline.ports import Values

RESERVED = frozenset("clCugm")
"""Options of the mount command that have a setting of their own (as in Nova)."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_PERMISSIONS = re.compile(r"0?[0-7]{3}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MountSettings:
    """How clusters are mounted. Raises Refused if a value is unusable.

    Users and groups are names. The mount shows all files with this owner and
    these permissions, so a guest's process must be let in by them.
    """

    user: str = "stack"
    group: str = "qemu"
    permissions: str = "0770"
    log: str = "/var/log/vstorage/%(cluster_name)s/nova.log.gz"
    cache: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, value in (("user", self.user), ("group", self.group)):
            if not _NAME.fullmatch(value):
                raise Refused(f"vzstorage_mount_{option}: {value!r} is not a name")
        if not _PERMISSIONS.fullmatch(self.permissions):
            raise Refused(f"vzstorage_mount_perms: {self.permissions!r} is not like 0770")
        for option, value in (("log", self.log), ("cache", self.cache)):
            if value and not value.startswith("/"):
                raise Refused(f"vzstorage_{option}_path: {value!r} is not an absolute path")
        _refuse_reserved(self.options)

    def missing(self) -> str:
        """The user or group that this host does not know; '' if it knows both."""
        names = (("user", self.user, pwd.getpwnam), ("group", self.group, grp.getgrnam))
        for what, name, look in names:
            try:
                look(name)
            except KeyError:
                return f"there is no {what} {name!r} on this host (vzstorage_mount_{what})"
        return ""

    def arguments(self, cluster: str, prefix: str = "") -> tuple[str, ...]:
        """The arguments for a cluster's mount command.

        *prefix*: of the names of files that two mounts cannot share.
        """
        owner = ("-u", self.user, "-g", self.group, "-m", self.permissions[-3:])
        places = (("-l", self.log), ("-C", self.cache))
        paths = [
            word for flag, path in places if path for word in (flag, _filled(path, cluster, prefix))
        ]
        return (*owner, *paths, *self.options)


def settings_of(values: Values) -> MountSettings:
    """Read the options that go to the mount command. Raises Refused."""
    return MountSettings(
        user=values["vzstorage_mount_user"],
        group=values["vzstorage_mount_group"],
        permissions=values["vzstorage_mount_perms"],
        log=values["vzstorage_log_path"],
        cache=values["vzstorage_cache_path"],
        options=_words(values["vzstorage_mount_opts"]),
    )


def _words(text: str) -> tuple[str, ...]:
    """Arguments, as words or as the list that Nova's documentation shows."""
    return tuple(re.findall(r"[^\s,'\"\[\]]+", text))


def _refuse_reserved(options: Sequence[str]) -> None:
    """Raise Refused for an argument that has a setting of its own, or could be the mount point."""
    before = ""
    for word in options:
        flag = re.fullmatch(r"-([A-Za-z])", word)
        if word[1:2] in RESERVED and word.startswith("-"):
            raise Refused(
                f"vzstorage_mount_opts: {word} is not taken there",
                hint="-c, -l, -C, -u, -g and -m have options of their own",
            )
        if not flag and (word.startswith("-") or not before.startswith("-")):
            raise Refused(
                f"vzstorage_mount_opts: {word!r} is not an option with its value",
                hint="write options one by one, apart from their values",
            )
        before = word


def _filled(path: str, cluster: str, prefix: str) -> str:
    directory, _, name = path.replace("%(cluster_name)s", cluster).rpartition("/")
    return f"{directory}/{prefix}{name}"
