"""``moorline-nova-compute``: nova-compute with Moorline, where no file can land beside Nova's.

For a distribution's Nova, or an editable one: ``compute_driver`` stays
``libvirt.LibvirtDriver``, and this command is started in nova-compute's place,
with the same arguments.
"""

from __future__ import annotations

import sys


def main() -> int | None:
    """Run nova-compute with our driver in the place of Nova's. Blocks until it ends."""
    # Nova patches the process as its options say, before anything else of it is imported.
    from nova.cmd import compute
    from nova.virt.libvirt import driver as libvirt_driver

    from moorline_nova.driver import LibvirtDriver

    libvirt_driver.LibvirtDriver = LibvirtDriver
    sys.argv[0] = "nova-compute"  # Nova's logs and options are named for it
    ended: int | None = compute.main()
    return ended


if __name__ == "__main__":
    sys.exit(main())
