"""One mount point: looks at it, mounts there, unmounts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moorline.backends import bare_directory
from moorline.deadline import Deadline
from moorline.errors import Failed, MoorlineError, NotOurs, Uncertain
from moorline.model import Broken, Client, Foreign, Unknown, Unlinked
from moorline.ports import Command, Host, IsIts, Mount, Root
from moorline.ports.mount import by_target, covering
from moorline.secret import Secret

_CUT_OFF = (errno.ENOTCONN, errno.ECONNABORTED)
"""The kernel's errors for a FUSE client that is gone; one that lives may answer them, too."""
_DAEMON_EXIT_SECONDS = 5.0
"""Seconds that a daemon whose mount is gone, or a command that was killed, has to end."""

Ill = Broken | Foreign | Unknown


@dataclass(frozen=True, slots=True)
class MountPoint:
    """The directory *at*, and a locked file beside it that tells of a mount command.

    *is_its*: whether a mount, wherever it is, may be one that was made here. *defect*: what the
    root of a mount shows to be wrong with it; '' if it is well. *tidy* removes what mounting may
    have left beside *at*. *deadline*: seconds that a command has. *user*: who mounts ('' is us).
    """

    host: Host
    at: Path
    is_its: IsIts
    defect: Callable[[Root], str]
    tidy: Callable[[Path], None]
    deadline: float
    user: str = ""

    # --- looks: None is a mount that works ---

    def look(self) -> Ill | Unlinked | None:
        """What is wrong with our mount here; None: it works.

        Blocks for the look's deadline at most.
        """
        mount = self.mounted()
        if mount is None:
            return self.look_beneath()
        if not self.is_its(mount):
            return Foreign(
                f"another file system ({mount.fstype}, {mount.source}) is mounted at {self.at}"
            )
        return self.look_at(mount)

    def look_within(self) -> Ill | Unlinked | None:
        """The same for a mount of the operator's; *at* may also be a directory on it."""
        mount = self._covering()
        if mount is None or not self.is_its(mount):
            if mount is not None and mount.target == str(self.at):
                return Foreign(f"{self.at} is {mount.source} ({mount.fstype}), not the share")
            return Unlinked()
        return self.look_at(mount)

    def look_at(self, mount: Mount) -> Ill | None:
        """What is wrong with *mount*, on which *at* lies; None: it works."""
        at = self.at
        try:
            root = self.host.root(at)
        except Uncertain:
            return Unknown(f"the share at {at} does not answer")
        except OSError as e:
            ill = self._broken(mount, e)
            return ill if self._covering() == mount else self._changed()
        return self.judge(mount, root)

    def judge(self, mount: Mount, root: Root) -> Ill | None:
        """What is wrong with *mount*, of which *root* was seen; None: it works."""
        at = self.at
        if root.path != at:
            return Foreign(f"{at} leads through a symbolic link to {root.path}")
        if f"{os.major(root.device)}:{os.minor(root.device)}" != mount.device:
            return Unknown(f"{at} does not lead to the mount that the mount table shows there")
        if defect := self.defect(root):
            return Broken(f"the mount at {at} is not sound: {defect}")
        return None

    def its(self, *, given: bool) -> Mount | None:
        """The mount on which *at* lies, if it may be of the share. *given*: the operator's."""
        mount = self._covering() if given else self.mounted()
        return mount if mount is not None and self.is_its(mount) else None

    def look_beneath(self) -> Foreign | Unknown | Unlinked:
        """The state of a mount point at which nothing is mounted."""
        at = self.at
        if self.held():
            why = f"a mount command for {at}, or the daemon that it left, still runs"
            return Unknown(f"{why}{self._holders()}", hangs=False)
        try:
            empty = self.host.root(at, list=True).empty
        except (FileNotFoundError, PermissionError):
            return Unlinked()  # it is not there, or is closed as we left it
        except Uncertain as e:
            return Unknown(f"it cannot be told whether {at} is empty: {e}")
        except OSError as e:
            return self._unless_mounted(Foreign(f"{at} cannot be used: {_said(e)}"))
        if empty:
            return Unlinked()
        # Files in the mount point would be hidden by the mount.
        return self._unless_mounted(
            Foreign(f"nothing is mounted at {at}, yet it is not empty: move its content away")
        )

    def mounted(self) -> Mount | None:
        """The topmost mount here."""
        return next((m for m in reversed(self.host.mounts()) if m.target == str(self.at)), None)

    def held(self) -> bool:
        """Whether a command, or a client that it started, may still mount here.

        A client whose mount lives on elsewhere holds the lock, too, but will not mount here.
        """
        return self.host.held(self._lock) and not self.host.only_serves(
            self._lock, self.at, self.is_its
        )

    # --- changes ---

    def mount(self, make: Callable[[], object]) -> None:
        """Prepare the directory and *make* the mount; a failure leaves nothing here."""
        bare_directory.prepare(self.at, self.user)
        # Clients that do not mount here may hold the old lock file: the next command gets a new
        # one. If the old one cannot be removed, the command fails on its lock.
        if self.host.held(self._lock) and not self.held():
            self._unlock()
        try:
            make()
        except MoorlineError:
            self._clear()
            raise

    def run(
        self, argv: tuple[str, ...], *, stdin: Secret[str] | None = None, outlives: bool = False
    ) -> None:
        """Run a command that is part of mounting here, one at a time even after a crash."""
        hold = self._lock
        self.host.run(
            Command(argv, self.deadline, stdin=stdin, user=self.user, outlives=outlives, hold=hold)
        )

    def take_away(self) -> None:
        """Unmount one layer, and remove the directory if that was the last; none is success.

        Raises Failed (busy), Uncertain, NotOurs.
        """
        mount = self.mounted()
        if mount is not None:
            if not self.is_its(mount):
                raise NotOurs(f"another file system ({mount.fstype}) is mounted at {self.at}")
            self._unmount(mount)
        elif self.held():
            raise Uncertain(f"a mount command for {self.at} still runs{self._holders()}")
        self._clear()

    # --- how ---

    @property
    def _lock(self) -> Path:
        return self.at.with_name(f"{self.at.name}.lock")

    def _unlock(self) -> None:
        with suppress(OSError):
            self._lock.unlink()

    def _holders(self) -> str:
        """Who holds the lock, as the end of a sentence."""
        holders = ", ".join(self.host.users_of(self._lock))
        return f": {holders}" if holders else ""

    def _covering(self) -> Mount | None:
        return covering(str(self.at), by_target(self.host.mounts()))

    def _changed(self) -> Unknown:
        return Unknown(f"{self.at} changed while it was looked at")

    def _unless_mounted(self, link: Foreign) -> Foreign | Unknown:
        """*link*, unless somebody has mounted here meanwhile, or is about to."""
        return self._changed() if self.mounted() is not None or self.held() else link

    def _broken(self, mount: Mount, error: OSError) -> Broken:
        """The state of a mount whose look met *error*: dead only if its client was seen gone."""
        reason = f"the mount at {self.at} fails: {_said(error)}"
        if error.errno not in _CUT_OFF:
            return Broken(reason)
        clients, has_ended = self.host.clients(mount), self.host.has_ended(mount)
        if clients is None and has_ended:
            told = "its connection has ended; whether its client has cannot be told"
            return Broken(f"{reason}: {told}", Client.GONE, presumed=True)
        if clients is None:
            return Broken(reason)
        if not clients:
            return Broken(f"{reason}; its client has ended", Client.GONE)
        runs = f"its client, {', '.join(clients)}, still runs"
        if has_ended:
            return Broken(f"{reason}: its connection has ended, but {runs}", Client.CUT_OFF)
        return Broken(f"{reason}; {runs}", Client.ALIVE)

    def _unmount(self, mount: Mount) -> None:
        """Unmount *mount*, the topmost one. Raises Failed (busy), Uncertain.

        It is lazy only if the mount is dead and kept busy. A lazy umount hides a mount that
        guests may still write through; through a dead one nobody writes, and guests that start
        now need its mount point.
        """
        # -c: resolving the path would ask a file system that may be dead.
        argv = ("umount", "-c", str(self.at))
        try:
            try:
                self.host.run(Command(argv, self.deadline))
            except Failed:
                if not (self._is_still(mount) and self._is_dead(mount)):
                    raise
                self.host.run(Command((*argv[:-1], "-l", argv[-1]), self.deadline))
        except Failed as e:
            if self._is_still(mount):
                users = ", ".join(self.host.users_of(self.at))
                by = f"; in use by {users}" if users else ""
                raise Failed(f"{self.at} is still mounted: {e}{by}") from e
        else:
            if self._is_still(mount):
                raise Failed(f"umount says that it unmounted {self.at}, which is still mounted")

    def _is_still(self, mount: Mount) -> bool:
        now = self.mounted()
        return now is not None and now.id == mount.id

    def _is_dead(self, mount: Mount) -> bool:
        ill = self.look_at(mount)
        return isinstance(ill, Broken) and ill.client is Client.GONE

    def _clear(self) -> None:
        """Remove what :meth:`mount` made, unless it is still or again in use.

        Removing a mount point also removes what is mounted there in other mount namespaces
        (rmdir(2), since Linux 3.19), so it stays if there are such.
        """
        deadline = Deadline(_DAEMON_EXIT_SECONDS)
        if self.mounted() is not None:
            return
        while self.held():
            if deadline.over():
                return
            deadline.sleep(0.01)
        self.tidy(self.at)
        if not self.host.elsewhere(self.at):
            bare_directory.remove(self.at)
        self._unlock()


def _said(error: OSError) -> str:
    """The error of a look at a mount, in words."""
    text = error.strerror or str(error)
    if error.errno == errno.EACCES:
        return f"{text} (a FUSE mount of another user needs allow_other to be seen by us)"
    return text
