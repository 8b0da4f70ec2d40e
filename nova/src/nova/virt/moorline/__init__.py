"""Where Nova looks for ``compute_driver = moorline.LibvirtDriver``: beneath ``nova.virt``."""

from moorline_nova.drivers import LibvirtDriver, __getattr__

__all__ = ["LibvirtDriver", "__getattr__"]
