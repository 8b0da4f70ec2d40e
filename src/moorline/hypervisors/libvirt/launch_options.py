"""The options for a libvirt guest's hardware. Light, as it is imported with the options."""

from __future__ import annotations

from dataclasses import dataclass

from moorline.ports import GuestOption, GuestOptions, Kind, Launching

LAUNCHING = Launching(
    options=GuestOptions(
        (
            GuestOption("memory", Kind.MIB, "Such as 2G, the default."),
            GuestOption("vcpus", Kind.COUNT, "Default: 2."),
            GuestOption(
                "network",
                Kind.TEXT,
                "A network of libvirt's, or none. Default: libvirt's `default` if it is up,"
                " else none.",
                metavar="NAME",
            ),
            GuestOption(
                "template",
                Kind.DOCUMENT,
                "A <domain> of libvirt's that says all but the name, the UUID and the hard disks."
                " Without <mac> in it, it is good for many guests.",
            ),
        )
    ),
    from_volumes=True,
    removal=GuestOptions(
        (
            GuestOption("force", Kind.FLAG, "Cut its power instead of asking it to shut down."),
            GuestOption("any", Kind.FLAG, "Even if it was not launched by Moorline."),
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a guest is made of, besides its disks.

    None and '': the template says it or, without one, libvirt chooses.
    """

    memory: int | None = None
    """MiB."""
    vcpus: int | None = None
    network: str = ""
    """libvirt's name for it, or ``none``."""
    template: str = ""
    """A ``<domain>``. Its name, its id and its hard disks are not taken from there;
    everything else is. What only one guest can have (a MAC address) is refused if
    another one has it."""
