"""What the page draws, made of what is known. Pure: nothing is asked, and nothing waited for."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from moorline.ports.care_results import Candidate
from moorline.ports.guest_results import GuestView
from moorline.ports.inspection import Finding
from moorline.ports.results import EventLogEntry, View
from moorline.ui.watch import Picture

Tone = Literal["bad", "wait", "good", "none"]
"""What a state means for a person: act; it goes on by itself; well; nothing is there."""

_BAD = ("hung", "broken", "foreign")
_STATE_OF_CHECK = {
    "hung-share": "hung",
    "dead-share": "dead",
    "failing-share": "failing",
    "cut-off-share": "cut off",
    "broken-link": "broken",
    "wrong-mount": "foreign",
    "wrong-device": "foreign",
    "written-beneath": "foreign",
    "leaked-link": "unused",
}
"""What a finding of the doctor says of the link that it is about."""
_TONE_OF_STATE: Mapping[str, Tone] = {
    "healthy": "good",
    "unknown": "wait",
    "unused": "wait",
    "not connected": "none",
}
_RANK: Mapping[Tone, int] = {"bad": 0, "wait": 1, "none": 2, "good": 3}
_WHOSE = {"nova": "Nova's", "released": "released", "other": "another's", "ours": "ours"}


@dataclass(frozen=True, slots=True)
class DiskRow:
    """A disk of a guest: wanted by us, or somebody else's, who hangs on the same share."""

    guest: str
    device: str
    volume: str
    link: str
    storage: str
    backend: str
    wanted: str
    """'': nobody asked us for it."""
    seen: str
    tone: Tone
    step: str
    why: str
    """What the step waits for; ''."""
    trouble: str
    trouble_at: float
    label: str
    whose: str

    @property
    def waits(self) -> bool:
        """Whether it is not as it is wanted."""
        return bool(self.wanted) and self.step != "nothing"

    @property
    def command(self) -> str:
        """What tells more of it."""
        return shlex.join(("moorline", "explain", self.volume))


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link, and who hangs on it: of a share all its volumes, else the one."""

    name: str
    storage: str
    backend: str
    state: str
    tone: Tone
    whose: str
    why: str
    command: str
    disks: Sequence[DiskRow]


@dataclass(frozen=True, slots=True)
class GuestRow:
    """A guest, and what it hangs on."""

    name: str
    state: str
    """running, stopped; gone: it is not there, and something is wanted for it."""
    tone: Tone
    disks: Sequence[DiskRow]


@dataclass(frozen=True, slots=True)
class Board:
    """The rows of the page, what needs a person first."""

    links: Sequence[LinkRow] = ()
    guests: Sequence[GuestRow] = ()
    disks: Sequence[DiskRow] = ()
    """The volumes that are wanted."""
    waiting: Sequence[DiskRow] = ()
    findings: Sequence[Finding] = ()
    events: Sequence[EventLogEntry] = ()
    """The latest first."""
    tally: Mapping[str, int] = field(default_factory=dict)


def board(picture: Picture) -> Board:
    """Draw what is known."""
    findings = picture.doctor.value.findings
    wanted = [_wanted(view) for view in picture.attachments.value]
    strange = [*_strange(picture.disks.value, wanted)]
    links = _links([*wanted, *strange], findings)
    guests = _guests(picture.guests.value, [*wanted, *strange], known=picture.guests.at > 0)
    disks = sorted(wanted, key=lambda row: (_RANK[row.tone], row.guest, row.device, row.volume))
    waiting = [row for row in disks if row.waits]
    tally = {
        "links": len(links),
        "bad_links": sum(row.tone == "bad" for row in links),
        "guests": len(picture.guests.value),
        "running": sum(guest.running for guest in picture.guests.value),
        "volumes": len(disks),
        "waiting": len(waiting),
        "findings": len(findings),
    }
    return Board(links, guests, disks, waiting, findings, [*reversed(picture.events.value)], tally)


def _wanted(view: View) -> DiskRow:
    step, _, why = view.next.partition(": ")
    return DiskRow(
        guest=view.guest or view.guest_id,
        device=view.device,
        volume=view.volume,
        link=view.link,
        storage=view.storage,
        backend=view.backend,
        wanted=view.wanted,
        seen=view.seen,
        tone=_tone(view.seen, step),
        step=step,
        why=why,
        trouble=view.trouble.message if view.trouble else "",
        trouble_at=view.trouble.at if view.trouble else 0.0,
        label=view.label,
        whose="Nova plugs" if view.hands_off else "ours",
    )


def _tone(seen: str, step: str) -> Tone:
    if seen in _BAD or step == "park":
        return "bad"
    return "good" if step == "nothing" else "wait"


def _strange(candidates: Iterable[Candidate], wanted: Iterable[DiskRow]) -> Iterator[DiskRow]:
    """The disks that nobody asked us for."""
    known = {(row.guest, row.volume) for row in wanted}
    links = {row.link for row in wanted}
    for each in candidates:
        if each.wanted or (each.guest, each.disk.mark) in known:
            continue
        yield DiskRow(
            guest=each.guest,
            device=each.disk.device,
            volume=each.disk.mark or each.disk.serial,
            link=_link_of(each.disk.path, links),
            storage=each.disk.path,
            backend=each.backend,
            wanted="",
            seen="attached",
            tone="none",
            step="nothing",
            why="",
            trouble="",
            trouble_at=0.0,
            label="",
            whose=_WHOSE.get(each.whose, each.whose),
        )


def _link_of(path: str, links: set[str]) -> str:
    """Which of *links* a path lies on; ''."""
    while path.strip("/"):
        if path in links:
            return path
        path = path.rpartition("/")[0]
    return ""


def _links(disks: Iterable[DiskRow], findings: Iterable[Finding]) -> list[LinkRow]:
    on: defaultdict[str, list[DiskRow]] = defaultdict(list)
    for row in disks:
        if row.link:
            on[row.link].append(row)
    about: dict[str, Finding] = {}
    for each in findings:
        if each.check in _STATE_OF_CHECK:
            about.setdefault(each.subject, each)
            on.setdefault(each.subject, [])
    rows = [_link(name, its, about.get(name)) for name, its in on.items()]
    return sorted(rows, key=lambda row: (_RANK[row.tone], row.name))


def _link(name: str, disks: Sequence[DiskRow], finding: Finding | None) -> LinkRow:
    ours = [row for row in disks if row.wanted]
    state = _state(ours, finding)
    tone = _TONE_OF_STATE.get(state, "bad")
    ill = tone == "bad" or state in ("unused", "unknown")
    says = next((row.why for row in ours if row.why and row.seen == state), "")
    told = finding if ill else None
    return LinkRow(
        name=name,
        storage=_common([row.storage for row in ours]),
        backend=ours[0].backend if ours else "",
        state=state,
        tone=tone,
        whose=_whose(state, ours),
        why=(told.what if told else says) if ill else "",
        command=told.next if told else "",
        disks=sorted(disks, key=lambda row: (_RANK[row.tone], row.guest, row.device)),
    )


def _state(ours: Sequence[DiskRow], finding: Finding | None) -> str:
    """The one word for a link. What its volumes are seen to be is newer than a finding."""
    seen = {row.seen for row in ours}
    told = _STATE_OF_CHECK[finding.check] if finding else ""
    if "hung" in seen:
        return "hung"
    if "broken" in seen:
        return told if told in ("dead", "failing", "cut off") else "broken"
    if "foreign" in seen:
        return "foreign"
    if not seen:
        return told or "unknown"
    if seen & {"attached", "connected", "snapshot", "partial", "leaving"}:
        return "healthy"
    return "not connected" if seen == {"absent"} else "unknown"


def _whose(state: str, ours: Sequence[DiskRow]) -> str:
    if state == "foreign":
        return "somebody else's"
    if not ours:
        return "nobody's"
    return ", ".join(sorted({row.whose for row in ours}))


def _common(storages: Sequence[str]) -> str:
    """What all of *storages*, URLs or paths, begin with, up to a slash."""
    named = [text for text in storages if text]
    if not named:
        return ""
    if len(set(named)) == 1:
        return named[0].rpartition("/")[0] or named[0]
    first, last = min(named).split("/"), max(named).split("/")
    same = []
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        same.append(one)
    return "/".join(same)


def _guests(
    guests: Sequence[GuestView], disks: Iterable[DiskRow], *, known: bool
) -> list[GuestRow]:
    of: defaultdict[str, list[DiskRow]] = defaultdict(list)
    for row in disks:
        of[row.guest].append(row)
    state = {guest.name: "running" if guest.running else "stopped" for guest in guests}
    rows = []
    for name in {*state, *of}:
        its = sorted(of.get(name, ()), key=lambda row: (row.device, row.volume))
        how = state.get(name, "gone" if known else "unknown")
        tones: list[Tone] = [row.tone for row in its if row.tone in ("bad", "wait")]
        if how == "gone":
            tones.append("wait")
        well: Tone = "good" if how == "running" else "none"
        rows.append(GuestRow(name, how, min(tones, key=_RANK.__getitem__, default=well), its))
    return sorted(rows, key=lambda row: (_RANK[row.tone], row.name))
