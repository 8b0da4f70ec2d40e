"""Hostile connections, through the command: refused with 3 and a reason, and nothing changes."""

from __future__ import annotations

from siege import OUTSIDE, Siege, siege

__all__ = ["siege"]  # the fixture


def test_names(siege: Siege) -> None:
    for name, word in [
        ("../outside.raw", "does not stay on its share"),
        ("a/../../outside.raw", "does not stay on its share"),
        ("./honest.raw", "does not stay on its share"),
        ("a//b", "does not stay on its share"),
        ("/etc/shadow", "is absolute"),
        (OUTSIDE, "is absolute"),
        ("-o", "looks like an option"),
        ("--help", "looks like an option"),
        ("a\nb", "do not print"),
        ("a\x00b", "NUL"),
        ("a\x1b[2Jb", "do not print"),
        ("a\u202egpj.exe", "do not print"),
        ("\ud800", "surrogate"),
        ("x" * 256, "too long"),
        ("d/" * 600 + "x", "longer than"),
        ("", "has no name"),
    ]:
        siege.refuse(siege.data(name=name), word)


def test_exports(siege: Siege) -> None:
    volume = siege.scene.share.name
    for export in [
        f"-o,reg1/{volume}",
        f"--config=/etc/shadow/{volume}",
        "reg1/-o",
        "reg1/../outside",
        "reg1/a/b",
        "reg1/",
        "reg1",
        f"reg1,,reg2/{volume}",
        f"reg1:0/{volume}",
        f"reg1:99999/{volume}",
        f"reg1;id/{volume}",
        f"$(id)/{volume}",
        f"[::g]/{volume}",
        f"reg1\n/{volume}",
        f"reg1/{volume}\x00",
        f"user:pw@reg1/{volume}",
        ",".join(["reg1"] * 33) + f"/{volume}",
        f"{'r' * 300}/{volume}",
        "r" * 5000,
    ]:
        siege.refuse(siege.data(export=export), "NUL" if "\0" in export else "export")


def test_fields_that_are_missing_or_absurd(siege: Siege) -> None:
    whole = siege.data()
    for field in ("export", "name", "format"):
        less = {key: value for key, value in whole["data"].items() if key != field}
        siege.refuse({**whole, "data": less}, field)
        for absurd in (None, 7, True, {"a": 1}):
            siege.refuse(siege.data(**{field: absurd}), field)
    siege.refuse({"data": whole["data"]}, "driver_volume_type")
    for kind in (None, 7, "", "nfsx", "../quobyte", ["quobyte"], "x" * 100):
        siege.refuse({**whole, "driver_volume_type": kind})
    for data in (None, [], "text", 7):
        siege.refuse({"driver_volume_type": "quobyte", "data": data}, "data")
    for text in ("", "{", "[]", "null", '"text"', "7", "[" * 100_000, '{"a": NaN', "\ufeff{}"):
        siege.refuse(text, "connection -")
    siege.refuse(siege.data(junk="x" * 100_000), "more than 65536 bytes")
    siege.refuse(siege.data(junk="x" * 300_000), "more than 262144 bytes")


def test_options(siege: Siege) -> None:
    for options in ("-o allow_other", "--config /etc/shadow", "rw", {"a": "b"}, ["-o"], 7):
        siege.refuse(siege.data(options=options), "mount options")


def test_formats(siege: Siege) -> None:
    for format in ("vmdk", "RAW", "auto", "qcow2,file.filename=/etc/shadow", "ploop", "raw\n"):
        siege.refuse(siege.data(format=format), "format")


def test_ids(siege: Siege) -> None:
    # An id that is unfit is not used; the one that is asked for must fit as well.
    name = siege.honest.file.name
    before = siege.state()
    for id in ("../x", "a b", "x" * 65, "-", "\n"):
        args = ("attach", siege.guest.name, f"quobyte://{siege.scene.share.export}/{name}")
        done = siege.scene.moorline(*args, "--format", "raw", "--volume", id, code=3)
        assert "moorline: " in done.stderr
    # Another id for the same storage, and another storage under the same id.
    siege.refuse(siege.data(name=name), "known under another id")
    siege.refuse(siege.data(volume_id=siege.honest.id), "belongs to another storage")
    assert siege.state() == before


def test_urls(siege: Siege) -> None:
    share = siege.scene.share
    before = siege.state()
    for url in (
        f"quobyte://{share.export}/../{share.name}/honest.raw",
        f"quobyte://{share.export}//etc/shadow",
        f"quobyte://{share.export}/",
        f"quobyte://{share.export}",
        "quobyte://",
        f"quobyte://-o/{share.name}/x",
        "nothing://x/y/z",
        "/",
        "/no-such-directory/x.raw",
        "/etc",
        "/dev/null",
        "/dev/no-such-device",
    ):
        done = siege.scene.moorline(
            "attach", siege.guest.name, "--format", "raw", "--", url, code=None
        )
        assert done.returncode == 3, (url, done.returncode, done.stderr)
        assert siege.state() == before, url
    siege.scene.moorline("attach", siege.guest.name, "-o", code=2)
