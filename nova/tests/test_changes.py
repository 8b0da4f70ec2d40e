"""Volumes of instances that are resized or rescued, swapped volumes, encrypted ones."""

from __future__ import annotations

from unittest import mock

from nova.tests.functional.api.client import OpenStackApiException
from scene import BOOT, SWAPPED, SWAPPED_FOR, Scene, until
from testtools import ExpectedException

KEYS = "nova.virt.libvirt.driver.key_manager.API"
ENCRYPTION = "nova.volume.cinder.API.get_volume_encryption_metadata"


class TestChanges(Scene):
    def setUp(self) -> None:
        super().setUp()
        self.boot = self.volume(BOOT)
        self.mine = self.server(self.boot)
        self.make_directory(self.mine)

    def test_a_volume_is_swapped(self) -> None:
        old = self.volume(SWAPPED)
        new = self.volume(SWAPPED_FOR)
        self._attach_volume(self.mine, old)
        self.api.put_server_volume(self.mine["id"], old, new)
        until(lambda: new in self.attached(self.mine))
        until(lambda: self.one().wanted() == {self.boot, new})
        (mount,) = self.one().mounted()
        source = self.config(self.mine, new).find("source")
        assert source is not None
        assert source.get("file") == f"{mount}/volume-{new}"
        self.detach(self.mine, new)
        until(lambda: self.one().wanted() == {self.boot})

    def test_a_swap_that_fails_keeps_the_old(self) -> None:
        old = self.volume(SWAPPED)
        new = self.volume(SWAPPED_FOR, name="../secret")
        self._attach_volume(self.mine, old)
        with ExpectedException(OpenStackApiException):
            self.api.put_server_volume(self.mine["id"], old, new)
        assert old in self.attached(self.mine)
        assert self.one().wanted() == {self.boot, old}

    def test_resize_on_the_same_host(self) -> None:
        self.flags(allow_resize_to_same_host=True)
        before = self.disks(self.mine)
        self._resize_server(self.mine, self._create_flavor(vcpu=1, memory_mb=1024, disk=0))
        self._confirm_resize(self.mine)
        assert self.disks(self.mine)[self.boot] == before[self.boot]
        assert self.one().attachments() == {(self.boot, self.mine["id"]): "connected"}
        assert len(self.one().mounted()) == 1

    def test_rescue_and_unrescue(self) -> None:
        before = self.disks(self.mine)
        image = {"id": "11111111-2222-4333-8444-555555555555", "name": "rescue"}
        image |= {"container_format": "bare", "disk_format": "raw", "min_disk": 0, "min_ram": 0}
        image |= {"status": "active", "size": 1, "checksum": "0" * 32, "is_public": True}
        hints = {"hw_rescue_bus": "virtio", "hw_rescue_device": "disk"}
        self.glance.create(None, {**image, "properties": hints})
        rescue = {"rescue": {"rescue_image_ref": image["id"]}}
        self.api.post_server_action(self.mine["id"], rescue)
        self._wait_for_state_change(self.mine, "RESCUE")
        assert self.disks(self.mine)[self.boot] == before[self.boot]
        assert self.one().attachments() == {(self.boot, self.mine["id"]): "connected"}
        self._unrescue_server(self.mine)
        assert self.one().attachments() == {(self.boot, self.mine["id"]): "connected"}
        assert len(self.one().mounted()) == 1

    def test_an_encrypted_volume_is_deciphered_by_nova_s_qemu(self) -> None:
        encryption = {"provider": "luks", "encryption_key_id": "k", "control_location": "front-end"}
        data = self.volume(encrypted=True)
        with mock.patch(KEYS) as keys, mock.patch(ENCRYPTION, return_value=encryption):
            keys.return_value.get.return_value.get_encoded.return_value = b"key"
            self._attach_volume(self.mine, data)
            disk = self.config(self.mine, data)
            assert disk.find("driver[@type='raw']") is not None
            assert disk.find("encryption[@format='luks']/secret") is not None
            self.detach(self.mine, data)
        assert self.one().wanted() == {self.boot}

    def test_a_cipher_that_qemu_does_not_know_is_rolled_back(self) -> None:
        encryption = {"provider": "plain", "control_location": "front-end"}
        data = self.volume(encrypted=True)
        with mock.patch(KEYS), mock.patch(ENCRYPTION, return_value=encryption):
            self.attach_fails(self.mine, data)
        assert data not in self.attached(self.mine)
        assert self.one().wanted() == {self.boot}
