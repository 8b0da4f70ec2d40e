"""The texts of the doctor's findings: what is wrong, why it matters, what to run."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import replace

from moorline.care.shared_files import Holder
from moorline.core.kept_disk import commit, over, released_file_changed
from moorline.errors import Refused
from moorline.model import Attachment, Guest, GuestName, Seen, VolumeId
from moorline.network_disk import is_known
from moorline.ports.inspection import Finding, Found


def command(*words: str) -> str:
    """*words* as a command that can be pasted into a shell."""
    return shlex.join(words)


def hung_share(link: str, why: str, *, fuse: bool) -> Finding:
    """A share does not answer. *fuse*: the kernel can end its connection."""
    return Finding(
        "hung-share",
        link,
        why,
        "its volumes cannot be attached or detached, and guests on it may stand still; other"
        " shares are not affected, and all goes on by itself when its server answers",
        command(*(("moorline", "abort", link, "--dry-run") if fuse else ("findmnt", link))),
    )


def wrong_device(link: str, why: str) -> Finding:
    """Something else is where a volume's device would be."""
    return Finding(
        "wrong-device",
        link,
        why,
        "it is somebody else's, so it is left alone; the volume waits for its end",
        command("ls", "-l", link),
    )


def written_beneath(link: str, why: str) -> Finding:
    """There are files in a mount point on which nothing is mounted."""
    return Finding(
        "written-beneath",
        link,
        why,
        "what was written there lies on the host's own disk, and would vanish under a mount",
        command("mv", link, f"{link}.found"),
    )


def lost_guest(row: Attachment, *, made_anew: bool) -> Finding:
    """The guest of an attachment is gone. *made_anew*: another has its name now."""
    who = row.guest_name
    if made_anew:
        who = f"an earlier guest of the name {row.guest_name} ({row.key.guest})"
    return Finding(
        "lost-guest",
        row.key.volume,
        f"volume {row.key.volume} is wanted on {who}, which is not there any more",
        "the attachment cannot come true, and keeps its link"
        + ("; the guest that has the name now is another one, and can have it then" * made_anew),
        command(
            "moorline",
            "detach",
            row.key.guest if made_anew or not row.guest_name else row.guest_name,
            row.key.volume,
        ),
    )


def unreadable_guest(guest: Guest) -> Finding:
    """The definitions of a guest cannot be read."""
    return Finding(
        "unreadable-guest",
        guest.name,
        f"guest {guest.name} cannot be read: {guest.unreadable}",
        "it may have a disk on any link, so no link is disconnected until it can be read;"
        " its own volumes wait, those of other guests can be attached and detached",
        guest.remedy or "moorline list",
    )


def refused_attachment(row: Attachment, why: str) -> Finding:
    """An attachment cannot become as wanted without a person's help."""
    return Finding(
        "refused-attachment",
        row.key.volume,
        f"volume {row.key.volume} on {row.guest_name}: {why}",
        "the attachment cannot come true as things are: cure what is said, or detach it",
        command("moorline", "explain", row.key.volume),
    )


def not_as_wanted(row: Attachment, why: str) -> Finding:
    """An attachment is not served yet."""
    return Finding(
        "not-as-wanted",
        row.key.volume,
        f"volume {row.key.volume} is not yet {row.want} on {row.guest_name}: {why}",
        "an agent goes on with it by itself; without one, a command must",
        "moorline sweep",
    )


def dead_share(row: Attachment, why: str, stop: str) -> Finding:
    """The client of a share has ended.

    *stop*: the command that stops the guest, if it was paused by that; else ''.
    """
    return Finding(
        "dead-share",
        row.link,
        why,
        "an agent mounts it anew by itself, also under guests that run: guests that start then"
        " have their disks, and those that ran have lost theirs until they are attached anew",
        stop or command("moorline", "sweep"),
    )


def renewable_share(row: Attachment, why: str) -> Finding:
    """The client of a share has ended, and guests that it paused can go on."""
    return Finding(
        "dead-share",
        row.link,
        why,
        "an agent mounts it anew by itself, and gives guests that were paused by that their disks"
        " anew: they have lost nothing, unless they are stopped",
        command("moorline", "sweep"),
    )


def renewable_guest(paused: Finding) -> Finding:
    """A guest that goes on by itself when it has its disks anew. *paused*: of its hypervisor."""
    why = "it goes on when it has been given its disks anew; resumed before, it only stops again"
    return replace(paused, why=why, next=command("moorline", "sweep"))


def lost_pause(paused: Finding, stop: str) -> Finding:
    """A guest that never goes on. *paused*: of its hypervisor; *stop*: what ends it."""
    why = (
        "it has lost its disk, so that it only stops again when it is resumed; what it has not"
        " written is lost, whatever is done"
    )
    return replace(paused, why=why, next=stop)


def failing_share(row: Attachment, why: str) -> Finding:
    """The client of a share lives and answers with an error, or it is unknown whether it lives."""
    return Finding(
        "failing-share",
        row.link,
        why,
        "its server may be away: then all goes on by itself when that is back, and to stop guests"
        " would help nobody",
        command("findmnt", row.link),
    )


def cut_off_share(row: Attachment, why: str) -> Finding:
    """The connection of a share was ended, and its client lives."""
    return Finding(
        "cut-off-share",
        row.link,
        why,
        "it never answers again; its client may be writing what it had taken, so it meets no"
        " successor. If it does not end by itself, end it: its process id is told",
        command("findmnt", row.link),
    )


def broken_link(row: Attachment, why: str, stop: str) -> Finding:
    """A link does not work, and a running guest has it open.

    *stop*: the command that stops the guest, if detaching the volume would not help; else ''.
    """
    return Finding(
        "broken-link",
        row.link,
        why,
        "it is not seen to be dead, so it is made anew only when no running guest has it open:"
        " what was detached for that can be attached again then",
        stop or command("moorline", "detach", row.guest_name, row.key.volume),
    )


def stale_disk(row: Attachment, why: str, stop: str) -> Finding:
    """A running guest has lost a disk.

    *stop*: the command that stops it, if we may not detach; ''.
    """
    return Finding(
        "stale-disk",
        f"{row.guest_name}/{row.key.volume}",
        why,
        "the running guest has a file of the old mount open: it gets errors of it, or, where the"
        " client of that mount still runs, writes to it where no path leads",
        stop or command("moorline", "detach", row.guest_name, row.key.volume),
    )


def not_renewed(row: Attachment, why: str) -> Finding:
    """A paused guest waits for its disk, which is to be given anew."""
    return Finding(
        "not-renewed",
        f"{row.guest_name}/{row.key.volume}",
        f"{row.guest_name} has not got volume {row.key.volume} anew yet, whose share's client died"
        + (f": {why}" if why else ""),
        "a guest that an I/O error paused has lost nothing: it loses what it has not written when"
        " it is stopped",
        "moorline sweep",
    )


def other_disk(row: Attachment, seen: Seen) -> Finding:
    """The guest's disk of a volume has another path."""
    return Finding(
        "other-disk",
        row.key.volume,
        seen.elsewhere,
        "the guest works on another file than the one that is wanted, and what it writes is there:"
        " who detaches the volume and attaches it again has it as it was before",
        command("moorline", "disks", row.guest_name),
    )


def replaced_image(guest: str, volume: VolumeId, why: str) -> Finding:
    """A running guest has another file open than the one at its disk's path."""
    return Finding(
        "replaced-image",
        volume,
        why,
        "what the guest writes is not in the file that is there, and is gone when it stops:"
        " copy within the guest what shall stay, before it stops or lets the disk go",
        command("moorline", "disks", guest),
    )


def snapshot(row: Attachment, seen: Seen) -> Finding:
    """The guest writes to an external snapshot above its volume."""
    return Finding(
        "snapshot",
        row.key.volume,
        over(seen),
        "it is not detached until the snapshot is written back into the volume, which the guest"
        " must run for",
        command(*commit(row, seen)),
    )


def shared_file(one: Holder, other: Holder, wanted: Collection[tuple[str, str]]) -> Finding:
    """Two guests have one file, or one server's disk.

    *wanted*: the guest and the volume of each attachment.
    """
    # What is stopped loses nothing by letting go; what we plugged we can take away.
    first, second = sorted((one, other), key=lambda each: not each.guest.running)
    ours = [each for each in (second, first) if (each.guest.id, each.disk.volume) in wanted]
    help = command("moorline", "disks", second.guest.name)
    if ours:
        help = command("moorline", "detach", ours[0].guest.name, ours[0].disk.volume)
    what = "disk" if is_known(first.file.path) else "file"
    # What a server gives to who names no export may be any of its exports.
    same = "is one" if what == "file" or first.file.path == second.file.path else "may be one"
    return Finding(
        "shared-file",
        first.file.path,
        f"{_has(first)}, and {_has(second)}: that {same} {what}",
        f"what one of them writes the other overwrites, or reads without knowing: the {what} is"
        " ruined. Only guests that all read it, or that all have it as shared, may have it",
        help,
    )


def _has(holder: Holder) -> str:
    runs = "runs" if holder.guest.running else "is stopped"
    above = f" beneath {holder.disk.path}" if holder.beneath else ""
    return f"{holder.guest.name}, which {runs}, has {holder.file.path}{above}"


def wrong_mount(link: str, why: str) -> Finding:
    """Something else is mounted where a share would be."""
    return Finding(
        "wrong-mount",
        link,
        why,
        "it is somebody else's, so it is never unmounted for you; the volumes wait for its end",
        command("umount", link),
    )


def unwanted_disk(guest: Guest, volume: VolumeId) -> Finding:
    """A disk of ours stays without an attachment."""
    return Finding(
        "unwanted-disk",
        f"{guest.name}/{volume}",
        f"{guest.name} has volume {volume} as {guest.disks[volume].device}"
        f" ({guest.disks[volume].source}); it was released, and stays",
        "nobody keeps its link, and nobody takes it away: `moorline adopt` with its connection"
        " takes it over, `moorline detach` with its id or device takes it away",
        command("moorline", "adopt", guest.name),
    )


def released_as_other(guest: Guest, volume: VolumeId, path: str) -> Finding | None:
    """A disk that was released as *path*, and is another file by now. None: it is not."""
    disk = guest.disks[volume]
    error = released_file_changed(GuestName(guest.id, guest.name), volume, path, disk)
    if error is None or path == disk.source:
        return None
    subject = f"{guest.name}/{volume}"
    if isinstance(error, Refused):
        return Finding(
            "snapshot",
            subject,
            f"{guest.name} has volume {volume} as {disk.device} ({disk.source}), an external"
            f" snapshot above {path}; it was released, and stays",
            "it is not detached until the snapshot is written back into the volume, which the"
            " guest must run for",
            error.hint,
        )
    why = f"nobody keeps its link, and `moorline detach` does not take it: {error.hint}"
    return Finding(
        "other-disk", subject, error.message, why, command("moorline", "disks", guest.name)
    )


def leaked_link(found: Found) -> Finding:
    """There is a link that nobody needs."""
    return Finding(
        "leaked-link",
        found.link,
        f"{found.link} is connected, and no attachment and no guest needs it",
        "it keeps a client running, and the share busy",
        "moorline repair",
    )


def leftover(found: Found) -> Finding:
    """An empty mount point of a link is left over."""
    return Finding(
        "leftover",
        found.link,
        f"the place of a link, {found.link}, is left, with nothing connected there",
        "it does no harm, but whoever looks may take it for a volume's",
        "moorline repair",
    )


def mounted_elsewhere(found: Found) -> Finding:
    """A mount that was taken away lives on in another mount namespace."""
    first = found.elsewhere[0].rpartition("(")[2].removesuffix(")")
    return Finding(
        "mounted-elsewhere",
        found.link,
        f"{found.link} is still mounted in other mount namespaces: {', '.join(found.elsewhere)}",
        "its client runs on for those, and its empty mount point stays; nothing here waits for it",
        command("findmnt", "--task", first),
    )


def unmanaged_disk(link: str, guest: str) -> Finding:
    """A guest uses a link of ours without an attachment."""
    return Finding(
        "unmanaged-disk",
        f"{guest} on {link}",
        f"{guest} has a disk on {link}, which nobody wanted",
        "the link is left alone for the guest's sake, but nobody mounts it after a reboot",
        command("moorline", "adopt", guest),
    )
