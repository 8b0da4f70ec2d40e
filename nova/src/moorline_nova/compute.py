"""``moorline-nova-compute``: starts nova-compute if no file can be put beside Nova's drivers.

For a distribution's Nova, or an editable one: with the same ``compute_driver =
moorline.LibvirtDriver``, this command is started in nova-compute's place, with
the same arguments. Started without it, Nova says that it finds no such driver.
"""

from __future__ import annotations

import sys


def main() -> int | None:
    """Run nova-compute with our driver where it looks for drivers. Blocks until it ends."""
    sys.argv[0] = "nova-compute"  # Nova finds its configuration and names its logs by this
    try:
        # It patches the process, or forbids that, before anything else is imported.
        from nova.cmd import compute
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "nova":
            raise
        sys.exit(
            f"moorline-nova-compute: Nova cannot be imported by {sys.executable}:"
            " install moorline-nova into the Python environment that nova-compute runs in"
        )
    from moorline_nova import drivers

    sys.modules.setdefault("nova.virt.moorline", drivers)
    ended: int | None = compute.main()
    return ended


if __name__ == "__main__":
    sys.exit(main())
