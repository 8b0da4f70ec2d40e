"""A copy is destroyed, and whoever has its disks' files elsewhere goes on to own them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from moorline.errors import Failed, Uncertain
from moorline.hypervisors.libvirt.owners_kept import given_back, owners_kept
from moorline.ports import Command, Output

QEMU, ROOT = "64055:64055", "0:0"
XML = """<domain><devices>
  <disk type='file'><source file='/s/a'/></disk>
  <disk type='file'><source file='/s/b'><seclabel model='dac' relabel='no'/></source></disk>
  <disk type='file'><source file='/s/c'/><readonly/></disk>
  <disk type='file'><source file='/s/d'/><shareable/></disk>
  <disk type='block'><source dev='/dev/e'/></disk>
  <disk type='file' device='cdrom'/>
</devices></domain>"""


@dataclass
class Shares:
    """Files by their paths, with their number and owner; some shares do not answer."""

    files: dict[str, list[str]]
    hang: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def run(self, command: Command) -> Output:
        path = command.argv[-1]
        self.asked.append(path)
        assert command.deadline <= 2
        if path.startswith(self.hang):
            raise Uncertain("it missed its deadline")
        if path not in self.files:
            raise Failed("no such file")
        if command.argv[0] == "chown":
            self.files[path][1] = command.argv[2]
            return Output("", "")
        return Output(" ".join(self.files[path]) + "\n", "")

    def end_guest(self) -> None:
        """As libvirt does: what was the guest's is root's."""
        for file in self.files.values():
            file[1] = ROOT


def test_only_what_libvirt_gives_back_is_looked_at() -> None:
    assert given_back(XML) == ["/s/a"]


def test_what_was_qemus_is_qemus_again() -> None:
    shares = Shares({"/s/a": ["1:1", QEMU], "/s/r": ["1:2", ROOT], "/s/n": ["1:3", QEMU]})
    with owners_kept(shares.run, ["/s/a", "/s/r", "/s/gone"]):
        shares.end_guest()
    assert {path: file[1] for path, file in shares.files.items()} == {
        "/s/a": QEMU,
        "/s/r": ROOT,
        "/s/n": ROOT,
    }


def test_another_file_of_that_name_is_left_alone() -> None:
    shares = Shares({"/s/a": ["1:1", QEMU]})
    with owners_kept(shares.run, ["/s/a"]):
        shares.files["/s/a"] = ["1:9", ROOT]
    assert shares.files["/s/a"] == ["1:9", ROOT]


def test_one_whom_somebody_gave_it_meanwhile_keeps_it() -> None:
    shares = Shares({"/s/a": ["1:1", QEMU]})
    with owners_kept(shares.run, ["/s/a"]):
        shares.files["/s/a"][1] = "7:7"
    assert shares.files["/s/a"][1] == "7:7"


def test_a_share_that_hangs_holds_up_neither_the_end_nor_another_share() -> None:
    shares = Shares({"/s/a": ["1:1", QEMU]}, hang=("/hung",))
    ended = False
    with owners_kept(shares.run, ["/hung/1", "/hung/2", "/s/a"]):
        ended = True
        shares.end_guest()
    assert ended
    assert shares.files["/s/a"][1] == QEMU
    assert shares.asked.count("/hung/1") == 1
    assert "/hung/2" not in shares.asked


def test_where_the_guest_does_not_end_nothing_is_lost() -> None:
    shares = Shares({"/s/a": ["1:1", QEMU]})

    def end() -> None:
        with owners_kept(shares.run, ["/s/a"]):
            shares.end_guest()
            raise Failed("it does not")

    with pytest.raises(Failed, match="it does not"):
        end()
    assert shares.files["/s/a"][1] == QEMU
