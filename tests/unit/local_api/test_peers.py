"""Who may do what: the kernel says who asks."""

from __future__ import annotations

import os
import socket as sockets

import pytest

from moorline.local_api.app import App
from moorline.local_api.client import Client
from moorline.local_api.peer import Rights, peer
from tests.support.peers import OURS, as_nobody, needs_root, reachable


@needs_root
@pytest.mark.parametrize(
    ("groups", "rights", "look", "change"),
    [
        ([], Rights(OURS), "Denied", "Denied"),
        ([], Rights(None), "Denied", "Denied"),
        ([OURS], Rights(OURS), "list", "list"),
        ([7, OURS, 8], Rights(OURS), "list", "list"),
        ([], Rights(OURS, anyone_may_look=True), "list", "Denied"),
        ([], Rights(None, anyone_may_look=True), "list", "Denied"),
    ],
)
def test_others(app: App, groups: list[int], rights: Rights, look: str, change: str) -> None:
    with reachable(app, rights) as path:
        client = Client(path, timeout=10)
        assert as_nobody(groups, client.attachments.list) == look
        assert as_nobody(groups, client.attachments.sweep) == change
        assert client.attachments.list() == []  # root may, always


@needs_root
def test_the_kernel_s_word_counts_not_only_the_file_s_mode(app: App) -> None:
    with reachable(app, Rights(OURS)) as path:
        path.chmod(0o666)
        assert as_nobody([], Client(path).attachments.list) == "Denied"
        assert as_nobody([], Client(path).attachments.sweep) == "Denied"
        assert as_nobody([], Client(path).about) == "Denied"


def test_a_peer_is_who_connected() -> None:
    one, other = sockets.socketpair()
    with one, other:
        seen = peer(one)
    assert (seen.pid, seen.uid) == (os.getpid(), os.geteuid())
    assert seen.groups == {os.getegid(), *os.getgroups()}


def test_rights_of_a_group_that_is_not_there() -> None:
    assert Rights.of("no-such-group-here", anyone_may_look=False) == Rights(None)
