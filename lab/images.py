"""Builds the tiny guest: a distribution's kernel, and a busybox in an initramfs of a megabyte.

Everything is fetched by ``apt-get download`` and unpacked without installing it.
The results are kept in ``.lab/`` below the checkout, or in ``$MOORLINE_LAB_CACHE``.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
KERNELS = ("linux-image-cloud-amd64", "linux-image-kvm", "linux-image-virtual")
"""Small kernels for virtual machines: Debian's, then Ubuntu's."""
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
CMDLINE = (
    "console=ttyS0 panic=-1 quiet nokaslr mitigations=off tsc=reliable no_timer_check "
    "random.trust_cpu=on"
)

INIT = r"""#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for m in $(cat /modules/order); do insmod /modules/$m; done

# The line agent: reads "ID COMMAND", writes "ID| LINE" for each line of output
# and "ID= CODE". The second ISA serial port needs no module.
agent() {
  stty -F /dev/ttyS1 raw -echo
  exec 3<>/dev/ttyS1
  echo READY >&3
  while read -r id command <&3; do
    output=$(sh -c "$command" 2>&1 </dev/null); code=$?
    [ -n "$output" ] && echo "$output" | sed "s/^/$id| /" >&3
    echo "$id= $code" >&3
  done
}
echo READY
while :; do agent; sleep 0.1; done
"""


@dataclass(frozen=True)
class Images:
    """What a guest boots from, and how it runs here."""

    kernel: Path
    initramfs: Path
    kvm: bool
    """Whether a guest was seen to boot under KVM here; else it is emulated (TCG)."""


def cache() -> Path:
    """The directory that keeps what is slow to make."""
    directory = Path(os.environ.get("MOORLINE_LAB_CACHE") or CHECKOUT / ".lab")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def build() -> Images:
    """Make the images unless they are there; seconds to a minute, needs apt's network."""
    # Named for this file's content: another recipe is another guest.
    directory = cache() / f"guest-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]}"
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            _build_at(directory)
    return Images(directory / "kernel", directory / "initramfs", _kvm(directory))


def _build_at(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        _build(Path(work))
        for old in cache().glob("guest-*"):
            shutil.rmtree(old)
        # All or nothing: a build that was interrupted leaves no such directory.
        (Path(work) / "guest").chmod(0o755)
        (Path(work) / "guest").rename(directory)


def _build(work: Path) -> None:
    guest, root = work / "guest", work / "root"
    guest.mkdir()
    unpack(work, root, ["busybox-static"])
    kernel = next(iter(sorted((root / "boot").glob("vmlinuz-*"))))
    shutil.copyfile(kernel, guest / "kernel")
    busybox = next(p for p in (root / "bin/busybox", root / "usr/bin/busybox") if p.exists())
    archive = newc(content(busybox.read_bytes(), modules(root)))
    (guest / "initramfs").write_bytes(gzip.compress(archive, 6, mtime=0))
    for file in guest.iterdir():
        file.chmod(0o644)  # QEMU runs as another user, whatever our umask


def unpack(work: Path, root: Path, packages: Sequence[str]) -> None:
    """Fetch the guest's kernel and *packages*, and unpack them below *root*."""
    work.chmod(0o755)
    if not _fetched(work, packages):
        # The lists may be older than the archive, which drops what was superseded.
        update = [] if os.geteuid() == 0 else ["sudo", "--"]
        subprocess.run([*update, "apt-get", "-q", "update"], check=False)
        if not _fetched(work, packages):
            wanted = ", ".join([" or ".join(KERNELS), *packages])
            raise SystemExit(f"lab: apt-get cannot fetch {wanted}: see above")
    for package in work.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)


def _fetched(work: Path, packages: Sequence[str]) -> bool:
    kernel = _kernel_packages()
    if not kernel:
        return False
    command = ["apt-get", "-q", "-o", "Acquire::Retries=3", "download", *kernel, *packages]
    return not subprocess.run(command, cwd=work, check=False).returncode


def _kernel_packages() -> list[str]:
    """The kernel and, where they are a package of their own, its modules; none: apt knows none."""
    for meta in KERNELS:
        image = _depends(meta, r"linux-image-\d\S*")
        if image:
            return image + _depends(image[0], r"linux-modules-\d\S*")
    return []


def _depends(package: str, pattern: str) -> list[str]:
    command = ["apt-cache", "depends", package]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return re.findall(rf"^\s*\|?Depends: ({pattern})$", found.stdout, re.MULTILINE)[:1]


def modules(root: Path, names: Sequence[str] = MODULES) -> dict[str, bytes]:
    """The modules that the guest needs, in the order in which they can be loaded.

    SystemExit: the packages have none, so they lie where nobody looked.
    """
    files: dict[str, Path] = {}
    for directory in ("lib/modules", "usr/lib/modules"):  # the second since Debian 13
        for path in (root / directory).rglob("*.ko*"):
            files[path.name.partition(".")[0].replace("-", "_")] = path
    if not files:
        raise SystemExit("lab: the kernel's package has no modules below lib/ or usr/lib/")
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or name not in files:  # not a file: built into the kernel
            return
        code = _module(files[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", code)
        for other in depends.group(1).decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        order[name] = code

    for name in names:
        add(name)
    return order


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        done = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True)
        return done.stdout
    return data


Member = tuple[str, int, bytes, tuple[int, int]]


def content(busybox: bytes, modules: dict[str, bytes], init: str = INIT) -> Iterator[Member]:
    """What is in an initramfs."""
    none = (0, 0)
    for directory in ("bin", "dev", "proc", "sys", "modules", "tmp", "mnt"):
        yield directory, stat.S_IFDIR | 0o755, b"", none
    yield "dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)
    yield "bin/busybox", stat.S_IFREG | 0o755, busybox, none
    yield "bin/sh", stat.S_IFLNK | 0o777, b"busybox", none
    yield "init", stat.S_IFREG | 0o755, init.encode(), none
    for name, code in modules.items():
        yield f"modules/{name}", stat.S_IFREG | 0o644, code, none
    yield "modules/order", stat.S_IFREG | 0o644, "\n".join(modules).encode(), none
    yield "TRAILER!!!", 0, b"", none


def newc(members: Iterator[Member]) -> bytes:
    """A cpio archive as Documentation/driver-api/early-userspace/buffer-format.rst wants it."""
    archive = bytearray()
    for inode, (name, mode, data, device) in enumerate(members, 1):
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        archive += b"\0" * (-len(archive) % 4) + data
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def _kvm(directory: Path) -> bool:
    """Whether KVM boots this guest; asked once, because some KVMs start and then hang."""
    override = os.environ.get("MOORLINE_LAB_KVM")
    if override:
        return override == "1"
    note = directory / "kvm"
    if not note.exists():
        note.write_text("1" if _boots_under_kvm(directory) else "0")
    return note.read_text() == "1"


def _boots_under_kvm(directory: Path) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = ["qemu-system-x86_64", "-accel", "kvm", "-M", "q35", "-m", "96", "-display", "none"]
    command += ["-nodefaults", "-no-reboot", "-serial", "stdio", "-append", CMDLINE]
    command += ["-kernel", str(directory / "kernel"), "-initrd", str(directory / "initramfs")]
    probe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        output = probe.communicate(timeout=8)[0]
    except subprocess.TimeoutExpired:
        probe.kill()
        output = probe.communicate()[0]
    return b"READY" in output
