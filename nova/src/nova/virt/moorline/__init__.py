"""Where Nova looks for ``compute_driver = moorline.LibvirtDriver``: beneath ``nova.virt``."""

from moorline_nova.driver import LibvirtDriver

__all__ = ["LibvirtDriver"]
