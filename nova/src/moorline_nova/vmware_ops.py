"""Nova's operations on virtual machines, changed where Virtual Volumes need it."""

from __future__ import annotations

import threading
from typing import Any

from nova import exception, utils
from nova.virt import driver
from nova.virt.vmwareapi import ds_util, images, vim_util, vm_util, vmops
from oslo_log import log
from oslo_vmware import exceptions as vexc
from oslo_vmware import vim_util as vutil
from oslo_vmware.objects.datastore import DatastorePath

from moorline_nova.vmware_cache import ImageCache
from moorline_nova.vmware_images import import_ova
from moorline_nova.vmware_kept import Kept, KeptImages
from moorline_nova.vmware_stores import NOVAS, WIDE, Fitness, Stores

LOG = log.getLogger(__name__)
_GIB = 1 << 30
_OF_A_RESIZE = ("original.vmdk", "resized.vmdk")
"""What Nova leaves beside the root disk until a resize is confirmed, or when one fails."""


class ConfigInfo(vmops.VirtualMachineInstanceConfigInfo):  # type: ignore[misc]
    """Nova's, whose cached image may be the disk of a machine."""

    kept: str | None = None

    @property
    def cache_image_path(self) -> Any:
        return DatastorePath.parse(self.kept) if self.kept else super().cache_image_path


class VMOps(vmops.VMwareVMOps):  # type: ignore[misc]
    """Nova's own wherever no datastore of Virtual Volumes is chosen."""

    def __init__(self, session: Any, virtapi: Any, volumeops: Any, *args: Any, **named: Any):
        super().__init__(session, virtapi, volumeops, *args, **named)
        self._stores = Stores(session)
        self._fitness = Fitness(session, volumeops)
        self._kept = KeptImages(session, self._base_folder)
        self._imagecache = ImageCache(session, self._base_folder, self._stores, self._kept)
        self._spawning = threading.local()

    def spawn(self, context: Any, instance: Any, *args: Any, **named: Any) -> None:
        devices = named.get("block_device_info") or (args[4] if len(args) > 4 else None)
        self._spawning.context = context
        self._spawning.devices = driver.block_device_info_get_mapping(devices)
        super().spawn(context, instance, *args, **named)

    def _get_vm_config_info(self, instance: Any, image_info: Any, extra_specs: Any) -> Any:
        """Nova's method, but for the choice of the datastore."""
        root_gb = instance.flavor.root_gb
        if root_gb and image_info.file_size > root_gb * _GIB:
            raise exception.InstanceUnacceptable(
                instance_id=instance.uuid, reason="Image disk size greater than requested disk size"
            )
        store = self._choose(instance, image_info, extra_specs.storage_policy)
        if self._stores.is_vvol(store.ref):
            # A child's parent would lie in another folder, that is, in another object.
            image_info.linked_clone = False
        return vmops.VirtualMachineInstanceConfigInfo(
            instance,
            image_info,
            store,
            self.get_datacenter_ref_and_name(store.ref),
            self._imagecache,
            extra_specs,
        )

    def _choose(self, instance: Any, image_info: Any, policy: str | None) -> Any:
        """The best datastore; what cannot be on Virtual Volumes goes to the best other one."""
        of_nova = ds_util.get_allowed_datastore_types(image_info.disk_type) & NOVAS
        if not image_info.image_id:
            of_nova = NOVAS  # a volume is moved there whole, so vSAN will do
        best = self._best(policy, of_nova | (WIDE - NOVAS))
        if not self._stores.is_vvol(best.ref):
            return best
        if image_info.image_id:
            reason = self._fitness.against_image(self._spawning.context, image_info)
        else:
            reason = self._fitness.against_volume(self._spawning.devices)
        if not reason:
            return best
        try:
            other = self._best(policy, of_nova)
        except exception.DatastoreNotFound as e:
            raise exception.InstanceUnacceptable(
                instance_id=instance.uuid,
                reason=f"only datastores of Virtual Volumes ({best.name}) would do: {reason}",
            ) from e
        LOG.info("Not on %s, but on %s: %s", best.name, other.name, reason, instance=instance)
        return other

    def _best(self, policy: str | None, types: frozenset[str]) -> Any:
        return ds_util.get_datastore(
            self._session, self._cluster, self._datastore_regex, policy, types
        )

    def _fetch_image_if_missing(self, context: Any, vi: Any) -> None:
        if not self._stores.is_vvol(vi.datastore.ref):
            super()._fetch_image_if_missing(context, vi)
            return
        bring = utils.synchronized(f"vmware-fetch-{vi.datastore.name}-{vi.ii.image_id}")(
            self._bring
        )
        kept = bring(context, vi)
        vi.kept = kept.path
        vi.ii.file_size = kept.size

    def _bring(self, context: Any, vi: Any) -> Kept:
        kept = self._kept.find(vi.ii.image_id, vi.datastore)
        if kept is not None:
            return kept
        size = self._fitness.size_of(context, vi.ii)
        return self._kept.bring(context, vi, size, self._root_resource_pool)

    def _fetch_image_as_ova(self, context: Any, vi: Any, image_ds_loc: Any) -> None:
        """Nova's, whose imports of OVAs never end well with today's oslo.vmware."""
        machine = import_ova(
            vi.ii.image_id,
            context,
            self._session,
            image_ds_loc.parent.basename,
            vi.datastore.name,
            vi.dc_info.vmFolder,
            self._root_resource_pool,
        )
        vi.ii.file_size = vm_util.get_vmdk_info(self._session, machine).capacity_in_bytes
        self._session._call_method(self._session.vim, "UnregisterVM", machine)

    def _create_folder_if_missing(self, ds_name: str, ds_ref: Any, folder: str) -> None:
        if self._stores.has_folders(ds_ref):
            super()._create_folder_if_missing(ds_name, ds_ref, folder)
            return
        vim = self._session.vim
        try:
            self._session._call_method(
                vim,
                "CreateDirectory",
                vim.service_content.datastoreNamespaceManager,
                datastore=ds_ref,
                displayName=folder,
            )
        except vexc.FileAlreadyExistsException:
            LOG.debug("Folder [%s] %s is there", ds_name, folder)

    def rescue(self, context: Any, instance: Any, network_info: Any, image_meta: Any) -> None:
        root = vm_util.get_vmdk_info(self._session, vm_util.get_vm_ref(self._session, instance))
        if root.device and self._stores.is_vvol(root.device.backing.datastore):
            image = images.VMwareImage.from_image(context, image_meta.id, image_meta)
            # Nova would power the instance off first.
            if reason := self._fitness.against_image(context, image):
                raise exception.InstanceNotRescuable(instance_id=instance.uuid, reason=reason)
        super().rescue(context, instance, network_info, image_meta)

    def _find_datastore_for_migration(
        self, instance: Any, vm_ref: Any, cluster_ref: Any, datastore_regex: Any
    ) -> Any:
        found = super()._find_datastore_for_migration(
            instance, vm_ref, cluster_ref, datastore_regex
        )
        disks = _disks(vm_util.get_hardware_devices(self._session, vm_ref))
        if found is None or not self._stores.is_vvol(found.ref):
            return found
        if all(disk.capacityInKB % 1024 == 0 for disk in disks):
            return found
        return ds_util.get_datastore(self._session, cluster_ref, datastore_regex, None, NOVAS)

    def _destroy_instance(self, instance: Any, destroy_disks: bool = True) -> None:
        """Nova's, but on Virtual Volumes, where a folder of files cannot be deleted as such.

        Unlike Nova's it raises what went wrong there: the instance is in ERROR then, and can be
        deleted again; Nova would forget it and leave its disks.
        """
        try:
            machine = vm_util.get_vm_ref(self._session, instance)
            home = self._home_on_vvol(machine) if destroy_disks else None
        except (exception.InstanceNotFound, vexc.ManagedObjectNotFoundException):
            home = None
        if home is None:
            super()._destroy_instance(instance, destroy_disks)
            return
        vm_util.power_off_instance(self._session, instance, machine)
        self._spare_others(instance, machine, home)
        self._clear(machine, home)
        task = self._session._call_method(self._session.vim, "Destroy_Task", machine)
        self._session._wait_for_task(task)
        vm_util.vm_ref_cache_delete(instance.uuid)

    def _home_on_vvol(self, machine: Any) -> Any:
        """The folder of a machine on Virtual Volumes; None: it lies elsewhere, or nowhere."""
        told = self._session._call_method(
            vutil,
            "get_object_properties_dict",
            machine,
            ["config.files.vmPathName", "datastore"],
        )
        path = told.get("config.files.vmPathName")
        if path is None:
            return None
        home = DatastorePath.parse(path).parent
        for ref in vim_util.get_array_items(told["datastore"]):
            if self._stores.is_vvol(ref) and self._name_of(ref) == home.datastore:
                return home
        return None

    def _name_of(self, ref: Any) -> str:
        return self._session._call_method(vutil, "get_object_property", ref, "summary.name")

    def _spare_others(self, instance: Any, machine: Any, home: Any) -> None:
        """Remove disks that are not the machine's own: they would be destroyed with it."""
        options = self._session._call_method(
            vutil, "get_object_property", machine, "config.extraConfig"
        )
        volumes = {
            option.value
            for option in (vim_util.get_array_items(options) if options else ())
            if option.key.startswith("volume-")
        }
        # A folder that is an object goes by its id, and by the name that it was made with.
        own = {(home.datastore, home.rel_path), (home.datastore, instance.uuid)}
        for disk in _disks(vm_util.get_hardware_devices(self._session, machine)):
            file = DatastorePath.parse(disk.backing.fileName)
            is_volume = getattr(disk.backing, "uuid", None) in volumes
            if is_volume or (file.datastore, file.dirname) not in own:
                LOG.info("Disk %s is not the instance's: it stays", file, instance=instance)
                self._volumeops.detach_disk_from_vm(machine, instance, disk)

    def _clear(self, machine: Any, home: Any) -> None:
        """Delete the disks that a resize left beside the root disk; no machine has them."""
        store = next(
            ref
            for ref in vim_util.get_array_items(
                self._session._call_method(vutil, "get_object_property", machine, "datastore")
            )
            if self._name_of(ref) == home.datastore
        )
        dc_info = self.get_datacenter_ref_and_name(store)
        for name in _OF_A_RESIZE:
            if ds_util.file_exists(self._session, self._get_ds_browser(store), home, name):
                ds_util.disk_delete(self._session, dc_info.ref, str(home.join(name)))


def _disks(devices: Any) -> list[Any]:
    """Those of *devices* that are disks in files."""
    return [
        device
        for device in devices
        if device.__class__.__name__ == "VirtualDisk" and getattr(device.backing, "fileName", None)
    ]
