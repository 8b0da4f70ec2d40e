"""What a pass is told that was just seen or done, so that it does not look again. Pure."""

from __future__ import annotations

from enum import Enum

from moorline.model import NO_DISK, Disk, Link, Unlinked


class Expect(Enum):
    """What the caller of a pass has just seen or done. It saves looks, and decides nothing.

    Where it is not so any more, the pass or the hypervisor notices before anything changes.
    """

    ANYTHING = "anything"
    NO_DISK_YET = "the guest has no disk of it"
    NO_DISK_ANY_MORE = "the guest was asked to let go of it"
    NO_LINK_ANY_MORE = "its link was taken away"


LINK_IS_LEFT = frozenset({Expect.NO_DISK_ANY_MORE, Expect.NO_LINK_ANY_MORE})


def is_no_matter(link: Link, disk: Disk, expect: Expect) -> bool:
    """Whether the next step is the same whoever needs the link: then no guest is asked for that."""
    if disk != NO_DISK:
        return expect in LINK_IS_LEFT  # it goes first, however long its guest takes
    # Of what is gone its place may have to be tidied, which taking it away has done.
    return expect is Expect.NO_LINK_ANY_MORE and isinstance(link, Unlinked)
