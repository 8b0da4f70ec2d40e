"""The options for a machine and the datastore of its disk. Light, as it is imported with them."""

from __future__ import annotations

from moorline.ports import GuestOption, GuestOptions, Kind, Launching, OneOf

_WHERE = (
    GuestOption("datastore-regex", Kind.TEXT, "Only datastores whose whole name matches.", "REGEX"),
    GuestOption("storage-policy", Kind.TEXT, "Only datastores that meet this policy.", "NAME"),
    GuestOption(
        "cluster",
        Kind.TEXT,
        "Needed where there are several; a host in no cluster by its name.",
        "NAME",
    ),
    GuestOption("reserve", Kind.BYTES, "What must stay free beside it."),
    GuestOption("round-up", Kind.FLAG, "The disk may become larger, to a whole multiple of 1 MiB."),
)
LAUNCHING = Launching(
    options=GuestOptions(
        (
            GuestOption(
                "image",
                Kind.FILE,
                "A disk to bring in: a stream-optimised VMDK, or an OVA with one.",
            ),
            GuestOption("empty", Kind.BYTES, "An empty disk instead."),
            GuestOption("memory", Kind.MIB, "Such as 2G, the default."),
            GuestOption("cpus", Kind.COUNT, "Default: 1."),
            GuestOption(
                "adapter",
                Kind.TEXT,
                "The disk's controller; default: pvscsi.",
                choices=("pvscsi", "lsilogic", "lsisas", "buslogic"),
            ),
            GuestOption("thin", Kind.FLAG, "Allocate the disk as it is written."),
            GuestOption("eager", Kind.FLAG, "Allocate and zero all of it beforehand."),
            GuestOption(
                "folder", Kind.TEXT, "The machine's folder, by name, or path (prod/web).", "NAME"
            ),
            GuestOption("resource-pool", Kind.TEXT, "The cluster's resource pool.", "NAME"),
            *_WHERE,
        ),
        (OneOf(("image", "empty"), needed=True), OneOf(("thin", "eager"))),
    ),
    from_volumes=False,
    removal=GuestOptions(),
)
CHOOSING = GuestOptions(
    (
        GuestOption("for", Kind.BYTES, "The disk, such as 20G."),
        GuestOption("image", Kind.FILE, "A disk that is brought in."),
        *_WHERE,
    ),
    (OneOf(("for", "image"), needed=True),),
)
