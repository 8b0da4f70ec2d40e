"""The image cache on Virtual Volumes: machines that never run, and keep an image each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nova import exception
from nova.virt.vmwareapi import vim_util, vm_util
from oslo_vmware import vim_util as vutil

from moorline_nova.vmware_images import Import, import_ova, import_stream

_IDS = uuid.UUID("3f1f2a34-4d3b-5a53-9a3e-0a8c8b6b52a7")
"""The namespace of the ids that machines which keep an image are given."""
_KEPT = "moorline.image"
"""Under this key of its extra configuration such a machine has what it keeps."""
_UNUSED = "moorline.unused-since"


@dataclass(frozen=True, slots=True)
class Kept:
    """An image on a datastore: its machine, its disk's path, and the disk's bytes."""

    machine: Any
    path: str
    size: int


class KeptImages:
    """The image cache on Virtual Volumes: for each image and datastore a machine that never runs.

    Files cannot be moved between the folders of a VVOL datastore, each of which is an object.
    The machine's instance UUID is made of what it keeps, and is given last, so a half-made
    one is never found. *owner* tells apart the computes that use one vCenter.
    """

    def __init__(self, session: Any, owner: str) -> None:
        self._session = session
        self._owner = owner

    def find(self, image_id: str, store: Any) -> Kept | None:
        """The image on a datastore, if it is there."""
        machine = vm_util._get_vm_ref_from_vm_uuid(self._session, self._id(image_id, store))
        return None if machine is None else self._read(machine)

    def bring(self, context: Any, vi: Any, size: int, pool: Any) -> Kept:
        """Fetch the image of *vi*, whose disk has *size* bytes, and keep it."""
        with self._imported(context, vi, size, pool) as machine:
            self._mark(
                machine,
                {_KEPT: f"{self._owner}/{vi.ii.image_id}"},
                instance_uuid=self._id(vi.ii.image_id, vi.datastore),
            )
            return self._read(machine)

    @contextmanager
    def _imported(self, context: Any, vi: Any, size: int, pool: Any) -> Iterator[Any]:
        session = Import(self._session, size)
        name = f"OSTACK_IMG_{uuid.uuid4()}"
        where = name, vi.datastore.name, vi.dc_info.vmFolder, pool
        bring = import_ova if vi.ii.is_ova else import_stream
        machine = bring(vi.ii.image_id, context, session, *where)
        done = False
        try:
            if not session.sized:
                raise exception.NovaException("this Nova imports images in a way that is not known")
            yield machine
            done = True
        finally:
            if not done:
                vm_util.destroy_vm(self._session, vi.instance, machine)

    def used(self, image_id: str, store: Any) -> None:
        """The image is in use: its age does not count any more."""
        if (kept := self.find(image_id, store)) is not None:
            self._mark(kept.machine, {_UNUSED: ""})

    def all(self, store: Any) -> Mapping[str, tuple[Any, str]]:
        """Each image on a datastore: its machine, and since when it is unused (empty: used)."""
        found = self._session._call_method(vutil, "get_object_property", store.ref, "vm")
        machines = vim_util.get_array_items(found) if found else []
        if not machines:
            return {}
        keys = [f'config.extraConfig["{key}"]' for key in (_KEPT, _UNUSED)]
        asked = self._session._call_method(
            vim_util,
            "get_properties_for_a_collection_of_objects",
            "VirtualMachine",
            machines,
            keys,
        )
        images_found: dict[str, tuple[Any, str]] = {}
        with vutil.WithRetrieval(self._session.vim, asked) as answers:
            for each in answers:
                said = {prop.name: prop.val.value for prop in getattr(each, "propSet", None) or ()}
                owner, _, image_id = said.get(keys[0], "").rpartition("/")
                if image_id and owner == self._owner:
                    images_found[image_id] = each.obj, said.get(keys[1], "")
        return images_found

    def unused(self, machine: Any, since: str) -> None:
        """Note since when nobody uses the image that *machine* keeps; empty: somebody does."""
        self._mark(machine, {_UNUSED: since})

    def drop(self, machine: Any) -> None:
        """Delete a machine and the image with it. Failing is logged, as Nova does it."""
        vm_util.destroy_vm(self._session, None, machine)

    def _mark(self, machine: Any, keys: Mapping[str, str], *, instance_uuid: str = "") -> None:
        spec = vm_util.get_vm_extra_config_spec(self._session.vim.client.factory, keys)
        if instance_uuid:
            spec.instanceUuid = instance_uuid
        vm_util.reconfigure_vm(self._session, machine, spec)

    def _read(self, machine: Any) -> Kept:
        disk = vm_util.get_vmdk_info(self._session, machine)
        if not disk.path:
            raise exception.NovaException(
                f"the machine {vutil.get_moref_value(machine)} kept an image, and has lost its"
                " disk: remove it from vCenter, and the image is fetched anew"
            )
        return Kept(machine, disk.path, disk.capacity_in_bytes)

    def _id(self, image_id: str, store: Any) -> str:
        return str(uuid.uuid5(_IDS, f"{self._owner}/{vutil.get_moref_value(store.ref)}/{image_id}"))
