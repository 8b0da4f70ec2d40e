"""Makes the file of an image larger that no guest has open.

QEMU's own tool does that, on the very file that was checked: whoever can write to the share may
have put another under its name since. So it runs as the second half of this module, which opens
the file, sees that it is that one, and hands it over. It ends with us: nobody else would wait for
it. QEMU's locks keep it from a file that a guest has open after all, and a guest from the file.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from moorline.errors import Failed, Refused, Uncertain
from moorline.host.command_failed import CommandFailed, shown
from moorline.model import ImageFile
from moorline.ports import Command, Output

DEADLINE_SECONDS = 60.0
"""Only what describes the image is written, but a share may be slow."""
_PR_SET_PDEATHSIG = 1


def grow(run: Callable[[Command], Output], source: ImageFile, size: int) -> None:
    """Make *source* *size* bytes large, as a guest sees it; never shorter. *run*: ``Host.run``.

    Raises Refused (it is not known which file was checked), Failed, Uncertain.
    """
    if not source.checked:
        raise Refused(f"{source.path} is not made larger: it is not known which file it is")
    checked = source.checked[0]
    told = {
        "path": str(source.path),
        "device": checked.device,
        "inode": checked.inode,
        "format": source.format,
        "backing": [[str(each.path), each.format] for each in source.backing],
        "size": size,
    }
    argv = (sys.executable, "-P", "-m", "moorline.host.image.growing", json.dumps(told))
    try:
        run(Command(argv, DEADLINE_SECONDS))
    except CommandFailed as e:
        raise Failed(f"{source.path} is not made larger: {shown(e.stderr)}") from e
    except Uncertain as e:
        raise Uncertain(
            f"it is not known whether {source.path} was made larger: qemu-img did not end within"
            f" {DEADLINE_SECONDS:g} s, and was killed"
        ) from e


def main() -> NoReturn:
    """Become ``qemu-img resize`` of the file that the only argument tells."""
    from moorline.host.linux import become

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    told = json.loads(sys.argv[1])
    if os.getppid() != parent:
        sys.exit("whoever asked for it has ended")
    try:
        file = os.open(told["path"], os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        st = os.fstat(file)
    except OSError as e:
        sys.exit(f"it cannot be opened: {e.strerror}")
    if not stat.S_ISREG(st.st_mode) or not st.st_nlink:
        sys.exit("it is no file any more")
    if (st.st_dev, st.st_ino) != (told["device"], told["inode"]):
        sys.exit("it was replaced just now")
    os.set_inheritable(file, True)
    image = "json:" + json.dumps(_image(told, file))
    try:
        become(["qemu-img", "resize", "-q", "--", image, str(told["size"])])
    except OSError as e:
        sys.exit(f"qemu-img cannot be run ({e.strerror}): is its package installed?")


def _image(told: dict[str, Any], file: int) -> dict[str, Any]:
    """What is to be opened, all of it by its format: nothing is guessed, or read in a header."""
    image: dict[str, Any] = {"driver": told["format"]}
    image["file"] = {"driver": "file", "filename": f"/proc/self/fd/{file}"}
    if told["format"] == "qcow2":
        image["backing"] = _backing(told["backing"])
    return image


def _backing(files: list[list[str]]) -> dict[str, Any] | None:
    """The files beneath; of what is longer there, nothing comes to light in what is new."""
    if not files:
        return None
    (path, form), *beneath = files
    found: dict[str, Any] = {"driver": form, "read-only": True}
    found["file"] = {"driver": "file", "filename": path}
    return found | ({"backing": _backing(beneath)} if form == "qcow2" else {})


if __name__ == "__main__":
    main()
