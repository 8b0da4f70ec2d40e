"""Boxes open for whom they are for, at their entry, from who may write them, and else not."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.errors import Denied, MoorlineError, Refused, Unavailable
from moorline.secret import Secret
from moorline.stores.fleet_seal import BoxKey, SealedBox, for_controllers, for_host
from tests.support.full_disk import full_disk

AT = "/moorline/desired/h1/web01/v1"
TEXT = b'{"data": {"export": "mds:/cluster:p4ssw0rd"}}'
FLEET, H1, H2 = (BoxKey(Secret(bytes([i]) * 32)) for i in (1, 2, 3))
KEYS = {"h1": H1.public, "h2": H2.public, "revoked": ""}
CONTROLLERS = for_controllers(FLEET, KEYS.__getitem__)
HOST1, HOST2 = for_host(H1, FLEET.public), for_host(H2, FLEET.public)


@given(st.binary(max_size=5000))
def test_a_box_opens_for_its_host_and_for_controllers(text: bytes) -> None:
    sealed = CONTROLLERS.seal(AT, text)
    assert HOST1.open(AT, sealed) == CONTROLLERS.open(AT, sealed) == text


def test_what_a_host_seals_opens_for_controllers_and_for_itself() -> None:
    at = "/moorline/definitions/h1/web01"
    sealed = HOST1.seal(at, TEXT)
    assert CONTROLLERS.open(at, sealed) == HOST1.open(at, sealed) == TEXT


def test_another_host_cannot_open_it() -> None:
    with pytest.raises(Unavailable, match="another key"):
        HOST2.open(AT, CONTROLLERS.seal(AT, TEXT))


def test_nothing_of_it_can_be_read() -> None:
    sealed = CONTROLLERS.seal(AT, TEXT)
    whole = sealed + b"".join(
        base64.b64decode(part) for part in (json.loads(sealed)["sealed"], H1.public)
    )
    for word in (b"p4ssw0rd", b"cluster", b"export"):
        assert word not in whole


def test_it_does_not_open_as_another_entry() -> None:
    """Neither another volume's, nor what another host would make of it."""
    sealed = CONTROLLERS.seal(AT, TEXT)
    for at in ("/moorline/desired/h1/web01/v2", "/moorline/definitions/h1/web01/v1"):
        with pytest.raises(Unavailable, match="another entry"):
            HOST1.open(at, sealed)


def test_a_host_cannot_write_what_another_is_to_do() -> None:
    """Whatever etcd lets it write: who has the grants of a host can seal as that host alone."""
    forged = SealedBox(H2, lambda at: (H1.public, FLEET.public), lambda at: ()).seal(AT, TEXT)
    for reader in (HOST1, CONTROLLERS):
        with pytest.raises(Unavailable, match="may not write"):
            reader.open(AT, forged)


def test_who_claims_to_be_another_does_not_open() -> None:
    forged = SealedBox(H2, lambda at: (H1.public,), lambda at: ()).seal(AT, TEXT)
    fields = {**json.loads(forged), "from": FLEET.public}
    with pytest.raises(Unavailable, match="changed since"):
        HOST1.open(AT, json.dumps(fields).encode())


def test_a_reader_cannot_put_another_text_into_the_box_for_the_other_reader() -> None:
    """A host has the key of the content; what the controllers wrote stays what they wrote."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from moorline.stores import fleet_seal as module

    box = json.loads(CONTROLLERS.seal(AT, TEXT))
    wrapping = module._wrapping(
        H1.shared(box["once"]) + H1.shared(FLEET.public), (box["once"], FLEET.public, H1.public)
    )
    bound = module._bound(AT, base64.b64decode(box["sealed"]))
    content = wrapping.decrypt(bytes(12), base64.b64decode(box["for"][H1.public]), bound)
    other = AESGCM(content).encrypt(bytes(12), b"another text", AT.encode())
    box["sealed"] = base64.b64encode(other).decode()
    with pytest.raises(Unavailable, match="changed since"):
        CONTROLLERS.open(AT, json.dumps(box).encode())


@given(st.data())
def test_what_was_changed_anywhere_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(CONTROLLERS.seal(AT, TEXT))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with suppress(Unavailable):
        assert HOST1.open(AT, bytes(sealed)) == TEXT  # the other reader's part, or a space


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.dictionaries(st.sampled_from(["from", "once", "for", "sealed"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_is_no_box_is_told_so(junk: bytes) -> None:
    with pytest.raises(Unavailable):
        HOST1.open(AT, junk)


def test_nesting_without_end_is_no_box() -> None:
    with pytest.raises(Unavailable):
        HOST1.open(AT, b"[" * 200_000)


def test_no_two_boxes_are_alike() -> None:
    assert CONTROLLERS.seal(AT, TEXT) != CONTROLLERS.seal(AT, TEXT)


def test_for_a_host_that_was_revoked_nothing_is_sealed() -> None:
    with pytest.raises(Refused, match="revoked"):
        CONTROLLERS.seal("/moorline/desired/revoked/web01/v1", TEXT)


def test_what_a_revoked_host_left_is_no_longer_taken_for_its_own() -> None:
    """Its key may be somebody else's; the controllers' own entries stay theirs."""
    keys = dict(KEYS)
    controllers = for_controllers(FLEET, lambda host: keys[host])
    at = "/moorline/definitions/h1/web01"
    of_host, of_fleet = HOST1.seal(at, TEXT), controllers.seal(at, TEXT)
    keys["h1"] = ""
    assert controllers.open(at, of_fleet) == TEXT
    with pytest.raises(Unavailable, match="may not write"):
        controllers.open(at, of_host)


@pytest.mark.parametrize(
    "public", ["", "x", "AAAA", "é", "A" * 44, base64.b64encode(bytes(32)).decode()]
)
def test_what_is_no_public_key_is_refused(public: str) -> None:
    """Also the point of all zeros, with which everybody has the same secret."""
    with pytest.raises(Unavailable):
        for_host(H1, public).seal(AT, TEXT)


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "box.key"
    assert BoxKey.made(path).public == BoxKey.made(path).public == BoxKey.from_file(path).public
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["box.key"]


def test_a_key_file_that_is_not_right_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "box.key"
    with pytest.raises(Unavailable):
        BoxKey.from_file(path)
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(Unavailable, match="not the key"):
        BoxKey.from_file(path)
    path.write_bytes(bytes(32))
    path.chmod(0o604)
    with pytest.raises(Denied, match="read by others"):
        BoxKey.from_file(path)


def test_on_a_full_disk_no_half_key_is_left(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(Unavailable):
        BoxKey.made(tmp_path / "box.key")
    assert list(tmp_path.iterdir()) == []


def test_no_error_and_no_text_of_a_key_tells_it() -> None:
    key = BoxKey(Secret(b"k" * 32))
    told = [repr(key), str(key), repr(HOST1)]
    for at, box in ((AT, b"{}"), (AT, b"p4ssw0rd"), (f"{AT}x", CONTROLLERS.seal(AT, TEXT))):
        try:
            HOST1.open(at, box)
        except MoorlineError as e:
            told += [str(e), repr(e), repr(e.__cause__)]
    for text in told:
        assert "kkkk" not in text
        assert "p4ssw0rd" not in text


def test_a_box_fits_until_a_readers_key_is_replaced() -> None:
    held = dict(KEYS)
    controllers = for_controllers(FLEET, held.__getitem__)
    sealed = controllers.seal(AT, TEXT)
    assert controllers.fits(AT, sealed)
    held["h1"] = H2.public
    assert not controllers.fits(AT, sealed)
    assert not controllers.fits(AT, b"none")
    held["h1"] = ""
    with pytest.raises(Refused, match="revoked"):
        controllers.fits(AT, sealed)
