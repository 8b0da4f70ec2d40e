"""Imports point down only, and each part knows only what it may."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
FILES = sorted((SRC / "moorline").rglob("*.py"))
PLUGIN = sorted((ROOT / "nova/src").rglob("*.py"))

VOCABULARY = {
    "model",
    "byte_sizes",
    "network_disk",
    "disk_options",
    "errors",
    "exit_codes",
    "secret",
    "redaction",
    "deadline",
    "shared_look",
}
SEAMS = VOCABULARY | {"ports"}
CORE = SEAMS | {"core"}
ADAPTERS = {"backends", "hypervisors", "stores", "host"}
VERBS = {"loop", "care", "operations"}
COMPOSITION = {
    "cinder",
    "api",
    "wiring",
    "fleet_wiring",
    "state_wiring",
    "config",
    "installed",
    "agent_location",
    "config_check",
}

# From the ground up: what each room of src/moorline may import, besides itself.
MAY_IMPORT = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "ports": VOCABULARY,
    "core": SEAMS,
    **dict.fromkeys(VERBS, CORE),
    **dict.fromkeys(ADAPTERS, SEAMS),
    "testing": SEAMS,
    "fleet": CORE,
    "api": CORE | VERBS,
    "agent_location": set(),
    "config": SEAMS | {"agent_location"},
    "cinder": SEAMS,
    "installed": SEAMS | {"cinder", "config"},
    "config_check": SEAMS | ADAPTERS | {"config", "installed"},
    "wiring": CORE | VERBS | ADAPTERS | COMPOSITION | {"fleet"},
    "state_wiring": CORE | ADAPTERS | {"cinder", "config", "fleet"},
    "fleet_wiring": CORE | ADAPTERS | COMPOSITION | {"fleet"},
    "local_api": CORE,  # its client lives in processes that have nothing else of us
    "ui": SEAMS | {"local_api"},  # it sees no more than any client does
    "agent": CORE | VERBS | COMPOSITION | {"fleet", "local_api", "ui"},
    "cli": CORE | VERBS | COMPOSITION | {"agent", "fleet", "local_api", "ui"},
    "__init__": SEAMS | COMPOSITION | {"local_api"},  # the public names, each loaded late
}
# What of us lives in nova-compute; `moorline-nova check` is a command of its own.
IN_NOVA = {
    *("moorline.deadline", "moorline.errors", "moorline.model"),
    "moorline.local_api.client",
}
BESIDE_NOVA = {"check.py": IN_NOVA | {"moorline.config", "moorline.installed", "moorline.wiring"}}
# Nothing of these may be loaded by what only prints help.
HEAVY = {"libvirt", "oslo_config", "oslo_utils", "cryptography", "yaml", "sqlite3", "asyncio"}


def imported(file: Path) -> Iterator[str]:
    for modules in statements(file):
        yield from modules


def statements(file: Path) -> Iterator[list[str]]:
    """What each import statement may name, the module itself first."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ([alias.name] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import hides what it names"
            assert node.module
            yield [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def part(name: str) -> str:
    return [*name.split("."), ""][1]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_imports_point_down(file: Path) -> None:
    mine = part(".".join(file.relative_to(SRC).with_suffix("").parts))
    allowed = MAY_IMPORT.get(mine, VOCABULARY) | {mine}
    known = set(MAY_IMPORT)
    for name in imported(file):
        if name.startswith("moorline") and part(name) in known:
            assert part(name) in allowed, f"{mine} imports {name}"
        assert not name.startswith("lab"), "the product never imports the lab"


def module(file: Path) -> str:
    parts = file.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as e:
        return list(e.args[1])
    return []


def needed(names: list[str], known: set[str]) -> set[str]:
    """The modules of ours that a statement loads for what it names."""
    modules = set(names[1:]) & known
    of_the_package = not modules or len(modules) < len(names) - 1
    return modules | ({names[0]} & known if of_the_package else set())


def test_no_two_files_need_each_other() -> None:
    """Not even late, or for a type's name alone."""
    known = {module(file) for file in FILES}
    imports = {
        module(file): set[str]().union(*(needed(names, known) for names in statements(file)))
        for file in FILES
    }
    assert circle(imports) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("file", PLUGIN, ids=lambda f: str(f.relative_to(ROOT)))
def test_the_plugin_for_nova_has_but_the_client(file: Path) -> None:
    allowed = BESIDE_NOVA.get(file.name, IN_NOVA)
    for names in statements(file):
        top = names[0].partition(".")[0]
        assert top not in {"lab", "eventlet", "asyncio", "oslo_privsep", "oslo_concurrency"}
        if top == "moorline":
            assert names[0] in allowed or set(names[1:]) <= allowed, f"{file.name}: {names}"


def test_one_hypervisor_does_not_import_another() -> None:
    for file in (SRC / "moorline/hypervisors").rglob("*/*.py"):
        mine = file.relative_to(SRC / "moorline/hypervisors").parts[0]
        for name in imported(file):
            if name.startswith("moorline.hypervisors."):
                assert name.split(".")[2] == mine, f"{file} imports {name}"


def test_help_loads_nothing_heavy() -> None:
    code = """if True:
        import sys
        import moorline.cli
        from moorline.cli.commands import main
        try:
            main(["--help"])
        except SystemExit as e:
            print(e.code, *sys.modules, file=sys.stderr)"""
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    code, *names = run.stderr.split()
    assert code == "0", run.stderr
    loaded = {name.partition(".")[0] for name in names}
    assert "click" in loaded
    assert not loaded & {*HEAVY, "json", "socket", "pathlib", "dataclasses"}
    assert {name for name in names if name.startswith("moorline.")} == {
        "moorline.cli",
        "moorline.cli.commands",
    }


def test_the_client_loads_neither_the_facade_nor_what_it_is_made_of() -> None:
    code = "import sys, moorline.local_api.client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*run.stdout.split()}
    ours = {name for name in loaded if name.startswith("moorline.")}
    beyond = {name for name in ours if part(name) not in SEAMS | {"core", "local_api"}}
    assert not beyond
    assert {name for name in ours if part(name) == "core"} <= {
        "moorline.core",
        "moorline.core.validation",  # the bounds of what is sent
    }
    assert not {name.partition(".")[0] for name in loaded} & {*HEAVY, "click", "logging"}


def test_the_rules_cover_every_part() -> None:
    parts = {part(".".join(f.relative_to(SRC).with_suffix("").parts)) for f in FILES}
    assert parts - {"__init__", ""} <= set(MAY_IMPORT)


@pytest.mark.parametrize("words", [["list"], ["attach", "web01", "/srv/a.raw"]], ids=" ".join)
def test_where_an_agent_answers_little_is_loaded(words: list[str], tmp_path: Path) -> None:
    """How long a command takes is how much it loads: what may be loaded is written here."""
    code = f"""if True:
        import json, socket, sys, threading
        state = {str(tmp_path)!r}
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(state + "/agent.sock")
        listening.listen()

        def serve():
            for answer in ({{"state_dir": state}}, {{"error": "busy", "message": "m"}}):
                connection, _ = listening.accept()
                connection.recv(65536)
                head = b"HTTP/1.0 %d X\\r\\n\\r\\n" % (200 if "error" not in answer else 423)
                connection.sendall(head + json.dumps(answer).encode())
                connection.close()

        threading.Thread(target=serve).start()
        from moorline.cli import fast_path
        code = fast_path.run([*{words!r}, "--state-dir", state])
        print(code, *sys.modules)"""
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    code, *loaded = run.stdout.split()
    assert code == "8", run.stderr  # it was the agent that was asked
    assert {name for name in loaded if name.startswith("moorline.")} <= {
        *("moorline.cli", "moorline.cli.agent_socket", "moorline.cli.fast_path"),
        *("moorline.cli.output", "moorline.cli.progress"),
        "moorline.cli.typed_files",  # a state directory that is typed may hang
        *(
            "moorline.core",
            "moorline.core.validation",
            "moorline.errors",
            "moorline.agent_location",
        ),
        *("moorline.deadline", "moorline.errors", "moorline.exit_codes"),
        *("moorline.local_api", "moorline.local_api.http_errors", "moorline.local_api.wire"),
    }
    slow = {"click", "dataclasses", "http", "inspect", "pathlib", "typing", "urllib", "email"}
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | slow | {"importlib.metadata"})


def test_without_an_agent_no_more_is_loaded_than_is_at_hand(tmp_path: Path) -> None:
    """No back end that nothing is attached by, no other hypervisor, nothing to read files with."""
    code = f"""if True:
        import sys
        from moorline.cli import main
        state = {str(tmp_path)!r}
        sys.argv = ["moorline", "list", "--state-dir", state, "--hypervisor", "test:///default"]
        try:
            main()
        except SystemExit as e:
            print(e.code, *sys.modules, file=sys.stderr)"""
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    code, *loaded = run.stderr.split()
    assert code == "0", run.stderr
    assert run.stdout.startswith("VOLUME")
    assert not {name.partition(".")[0] for name in loaded} & {"oslo_config", "oslo_utils", "yaml"}
    rooms = ("moorline.backends", "moorline.loop", "moorline.agent.", "moorline.local_api.client")
    others = ("moorline.care.doctor", "moorline.care.maintenance", "moorline.operations.guests")
    of_fleets = ("moorline.fleet.record", "moorline.stores.etcd", "moorline.ports.care_results")
    renewing = "moorline.hypervisors.libvirt.block_graph"
    unneeded = (*rooms, *others, *of_fleets, renewing)
    assert not [name for name in loaded if name.startswith(unneeded)]
    ours = {name.split(".")[2] for name in loaded if name.startswith("moorline.hypervisors.")}
    assert ours == {"libvirt"}
