"""The size rule: whole MiB on VVOL, whole KiB elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.errors import Refused
from moorline.hypervisors.vsphere.provision.disk_sizes import MAX_DISK_BYTES, MIB, size_on, unit

TYPES = st.sampled_from(["VVOL", "VMFS", "NFS", "NFS41", "vsan"])


@pytest.mark.parametrize("size", [MIB, 7 * MIB, 20 << 30, MAX_DISK_BYTES])
def test_whole_mebibytes_are_taken_as_they_are(size: int) -> None:
    assert size_on("VVOL", size) == size


@pytest.mark.parametrize(
    ("size", "fitting"),
    [(1, MIB), (512, MIB), (MIB - 1, MIB), (MIB + 1, 2 * MIB), (3 * MIB + 65536, 4 * MIB)],
)
def test_what_is_not_whole_is_refused_with_the_numbers_or_rounded_up(
    size: int, fitting: int
) -> None:
    with pytest.raises(Refused) as refused:
        size_on("VVOL", size, what="the image")
    assert str(size) in refused.value.message
    assert str(fitting) in refused.value.message
    assert str(fitting - size) in refused.value.hint
    assert size_on("VVOL", size, round_up=True) == fitting


def test_the_rule_is_vvols_alone() -> None:
    for other in ("VMFS", "NFS", "NFS41", "vsan"):
        assert size_on(other, 3 * MIB + 65536) == 3 * MIB + 65536
    with pytest.raises(Refused, match="KiB"):
        size_on("VMFS", MIB + 512)


def test_the_type_is_read_in_any_case() -> None:
    assert unit("vvol") == unit("VVOL") == MIB


@pytest.mark.parametrize("size", [0, -MIB, MAX_DISK_BYTES + MIB, 2**80])
def test_absurd_sizes_are_refused_even_if_rounding_is_wanted(size: int) -> None:
    with pytest.raises(Refused):
        size_on("VVOL", size, round_up=True)


@given(TYPES, st.integers(1, MAX_DISK_BYTES))
def test_rounding_gives_the_least_size_that_holds_it(type: str, size: int) -> None:
    rounded = size_on(type, size, round_up=True)
    assert size <= rounded < size + unit(type)
    assert size_on(type, rounded) == rounded
