"""Runs commands as another user."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from typing import TypedDict

from moorline.errors import Failed


class Identity(TypedDict, total=False):
    """Arguments of ``subprocess.Popen``."""

    user: int
    group: int
    extra_groups: Sequence[int]
    env: dict[str, str]


def identity(name: str) -> Identity:
    """The arguments that make a process run as *user*; none if we are that user. Raises Failed."""
    if not name:
        return {}
    user = user_named(name)
    if user.pw_uid == os.geteuid():
        return {}
    return {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": os.getgrouplist(name, user.pw_gid),
        "env": {**os.environ, "HOME": user.pw_dir, "USER": name, "LOGNAME": name},
    }


def user_named(name: str) -> pwd.struct_passwd:
    """Look a user up. Raises Failed."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise Failed(f"there is no user {name!r} on this host") from None
