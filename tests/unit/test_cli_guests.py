"""launch, start, remove: how they are typed, and what libvirt's own test driver makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moorline.cli.commands import main

UUID = "7b1d2f6e-3a0c-4b5e-9d8f-0a1b2c3d4e5f"
DOMAIN = """
<domain type='test'>
  <name>golden</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type>hvm</type></os>
</domain>
"""


class Typed:
    """Commands on libvirt's test driver, whose guests live as long as its connection."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._runner = CliRunner()
        self.volume = directory / "root.raw"
        self.volume.write_bytes(bytes(4096))
        self.state = directory / "state"
        self.state.mkdir()
        self.boot = self.write("boot.json", json.dumps(self.connection()))
        self.template = self.write("template.xml", DOMAIN)

    def connection(self) -> dict[str, Any]:
        data = {"path": str(self.volume), "format": "raw"}
        return {"driver_volume_type": "local", "data": data}

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def __call__(self, *words: str, hypervisor: str = "test:///default") -> Result:
        state = {"MOORLINE_STATE_DIR": str(self.state)}
        env = {**state, "MOORLINE_HYPERVISOR": hypervisor}
        return self._runner.invoke(main, [*words], env=env)


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    return Typed(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ([], 2, "give --boot"),
        (["--boot", "BOOT", "--format", "raw"], 2, "--format belongs to URL|PATH"),
        (["--boot", "BOOT", "--memory", "0"], 2, "'0' is no size"),
        (["--boot", "BOOT", "--memory", "2GG"], 2, "'2GG' is no size"),
        (["--boot", "BOOT", "--vcpus", "0"], 2, "--vcpus"),
        (["--boot", "BOOT", "--timeout", "-1"], 2, "--timeout"),
        (["--boot", "BOOT", "--image", "x.vmdk"], 2, "--image is for vsphere://"),
        (["--boot", "/no/such/file.json"], 3, "/no/such/file.json"),
        (["--boot", "nonsense://x", "--format", "raw"], 3, "nonsense"),
        (["--boot", "BOOT", "--connection", "/no/such/file"], 3, "/no/such/file"),
        (["--boot", "BOOT", "--template", "/no/such/file"], 3, "the template /no/such/file"),
        (["--boot", "BOOT", "--template", "BOOT"], 3, "the template is not XML"),
        (["--boot", "BOOT", "--template", "TEMPLATE", "--network", "x"], 3, "what networks"),
        (["--boot", "BOOT", "--template", "SLIP"], 3, "validate against schema"),
    ],
)
def test_what_cannot_be_launched(typed: Typed, words: list[str], code: int, why: str) -> None:
    slip = typed.write("slip.xml", DOMAIN.replace("</os>", "</os><typo/>"))
    files = {"BOOT": typed.boot, "TEMPLATE": typed.template, "SLIP": slip}
    done = typed("launch", "web01", *(files.get(word, word) for word in words))
    assert (done.exit_code, why in done.stderr) == (code, True), done.stderr
    assert json.loads(typed("list", "--output", "json").stdout) == []


@pytest.mark.parametrize("name", ["", ".", "a/b", "a b", "a\nb", "x" * 65, UUID])
def test_names_that_no_guest_has(typed: Typed, name: str) -> None:
    done = typed("launch", "--boot", typed.boot, "--template", typed.template, "--", name)
    why = "no name for a guest" if name else "is empty"
    assert (done.exit_code, why in done.stderr) == (3, True), done.stderr


def test_a_guest_of_somebody_else_is_not_ours(typed: Typed) -> None:
    launch = ("launch", "test", "--boot", typed.boot, "--template", typed.template)
    assert typed(*launch).exit_code == 7
    assert typed("remove", "test").exit_code == 7
    assert typed("start", "test").exit_code == 0  # it runs
    assert typed("start", "nobody").exit_code == 4
    assert typed("remove", "nobody").exit_code == 4


@pytest.mark.parametrize("verb", ["start", "remove"])
def test_powervm_is_refused_plainly(typed: Typed, verb: str) -> None:
    done = typed(verb, "lpar1", hypervisor="powervm://localhost")
    assert done.exit_code == 3
    assert "powervm" in done.stderr


def test_powervm_refuses_to_launch_whatever_is_asked(typed: Typed) -> None:
    words = ("launch", "lpar1", "--boot", typed.boot, "--memory", "2G", "--no-start")
    done = typed(*words, hypervisor="powervm://localhost")
    assert (done.exit_code, "powervm guests" in done.stderr) == (3, True), done.stderr


LIBVIRTS = {"--boot", "--format", "--connection", "--vcpus", "--network", "--template"}
VSPHERES = {"--image", "--empty", "--cpus", "--adapter", "--thin", "--storage-policy"}
OF_ALL = {"--no-start", "--timeout", "--hypervisor"}


@pytest.mark.parametrize(
    ("hypervisor", "has", "has_not"),
    [
        ("qemu:///system", OF_ALL | LIBVIRTS | {"--memory"}, VSPHERES),
        ("test:///default", OF_ALL | LIBVIRTS | {"--memory"}, VSPHERES),
        ("vsphere://vcenter.example", OF_ALL | VSPHERES | {"--memory"}, LIBVIRTS),
        ("powervm:///", OF_ALL, LIBVIRTS | VSPHERES | {"--memory"}),
        ("nonsense:///", OF_ALL, LIBVIRTS | VSPHERES | {"--memory"}),
    ],
)
def test_the_help_has_the_options_of_the_hypervisor_at_hand(
    typed: Typed, hypervisor: str, has: set[str], has_not: set[str]
) -> None:
    help = typed("launch", "--help", hypervisor=hypervisor).stdout
    told = set(re.findall(r"^ +(?:-., )?(--[a-z-]+)", help, re.MULTILINE))
    assert (has - told, has_not & told) == (set(), set())


@pytest.mark.parametrize("how", ["typed", "typed short", "configured"])
def test_the_hypervisor_at_hand_is_the_one_that_is_meant(typed: Typed, how: str) -> None:
    config = typed.write("it.conf", "[libvirt]\nconnection_uri = vsphere://vcenter.example\n")
    words = {
        "typed": ["--hypervisor", "vsphere://vcenter.example"],
        "typed short": ["-qc", "vsphere://vcenter.example"],
        "configured": ["--config-file", config],
    }[how]
    for verb, option, code in (("remove", "--force", 2), ("launch", "--boot", 2)):
        done = typed(verb, "web01", option, "x", *words, hypervisor="")
        assert (done.exit_code, f"{option} is for qemu" in done.stderr) == (code, True), done.stderr


def test_a_configuration_that_cannot_be_used_is_told_before_the_options(typed: Typed) -> None:
    config = typed.write("broken.conf", "no assignment")
    for words in (("launch", "web01", "--image", "x"), ("remove", "web01", "--force")):
        done = typed(*words, "--config-file", config, hypervisor="")
        assert (done.exit_code, "cannot be used" in done.stderr) == (3, True), done.stderr
    done = typed("launch", "web01", "--boot", typed.boot, hypervisor="nonsense:///")
    assert (done.exit_code, "no hypervisor is known" in done.stderr) == (3, True), done.stderr
