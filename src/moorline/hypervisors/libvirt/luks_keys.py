"""The keys of LUKS images in libvirtd. Unlike a login's, each is kept as long as its attachment."""

from __future__ import annotations

from moorline.errors import MoorlineError, Refused
from moorline.hypervisors.libvirt.secrets import Purpose, Secrets
from moorline.model import GuestId, VolumeId
from moorline.secret import Secret

_WRONG_KEY = "cannot unlock any keyslot"
"""What QEMU says where a LUKS image opens with another key (crypto/block-luks.c)."""


class LuksKeys:
    """See :class:`moorline.ports.KeyKeeping`."""

    _secrets: Secrets

    def has_key(self, guest: GuestId, volume: VolumeId) -> bool:
        return self._secrets.has(Purpose(guest, volume))

    def give_key(self, guest: GuestId, volume: VolumeId, key: Secret[bytes]) -> None:
        _demand_text(volume, key)
        self._secrets.keep(Purpose(guest, volume), key)

    def take_key(self, guest: GuestId, volume: VolumeId) -> None:
        self._secrets.drop(Purpose(guest, volume))


def _demand_text(volume: VolumeId, key: Secret[bytes]) -> None:
    """Raise Refused unless QEMU takes the key (qcrypto_secret_lookup_as_utf8 of its crypto/)."""
    try:
        text = key.reveal().decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # the error would quote it
        raise Refused(
            f"the key of volume {volume} is no text in UTF-8, and QEMU takes no other",
            hint="add one that is text to the image: cryptsetup luksAddKey",
        )


def demand_right_key(whose: str, error: MoorlineError) -> None:
    """Raise Refused if *error* says that the key of *whose* LUKS image is another."""
    if _WRONG_KEY in error.message:
        raise Refused(
            f"the key does not open the LUKS image of {whose}",
            hint="detach it, and attach it with its key: moorline attach … --luks-key-file FILE",
        ) from error
