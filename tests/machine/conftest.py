"""Machines for the tests: `make test-machine`, or with MOORLINE_TEST_MACHINE set to their releases.

``debian12,debian13`` are all; ``here`` is the release of the machine that the tests run on, as
`make test` has it, and skips the tests where there can be none. A machine is booted once for each
release, has Moorline as docs/operations.md tells, and is handed from test to test; a test that
fails gets it thrown away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.machine import container, operations, tree, virtual
from lab.machine.container import Machine
from lab.machine.virtual import Virtual
from tests.support.real import Real
from tests.support.stage import Stage

GIVEN = [each for each in os.environ.get("MOORLINE_TEST_MACHINE", "").split(",") if each]
HERE = "here"
MUST = "MOORLINE_TEST_WHOLE"
"""In the environment: where there can be no machine, a test fails rather than being skipped."""


def _this_release() -> str:
    """As debian12; whatever it is, if there are no trees of it."""
    lines = Path("/etc/os-release").read_text().splitlines()
    facts = {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
    return f"{facts.get('ID')}{facts.get('VERSION_ID', '')}"


RELEASES = [_this_release() if each == HERE else each for each in GIVEN]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "release" in metafunc.fixturenames:
        metafunc.parametrize("release", RELEASES or ["debian13"], scope="session")


@pytest.fixture
def release(request: pytest.FixtureRequest) -> str:
    """The release under test."""
    return str(request.param)


class Pool:
    """One machine at a time, with Moorline in it."""

    def __init__(self) -> None:
        self._release = ""
        self._held = ExitStack()
        self._machine: Machine | None = None

    def get(self, release: str) -> Machine:
        if self._machine is None or self._release != release or not self._machine.running:
            self.drop()
            machine = self._held.enter_context(container.machine(release))
            machine.start()
            operations.install(machine)
            self._machine, self._release = machine, release
        return self._machine

    def drop(self) -> None:
        self._machine = None
        self._held.close()


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.drop()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the trees, which takes longer than a test may."""
    if session.config.option.collectonly or not any(map(_is_story, session.items)):
        return
    try:
        for release in RELEASES:
            if release not in tree.RELEASES:
                raise tree.Forbidden(f"this is {release}, not one of {', '.join(tree.RELEASES)}")
            tree.build(release)
    except tree.Unavailable as e:
        session.stash[UNAVAILABLE] = e


def _is_story(item: pytest.Item) -> bool:
    return item.path.parent == Path(__file__).parent


UNAVAILABLE = pytest.StashKey[tree.Unavailable]()


@pytest.fixture
def _possible(request: pytest.FixtureRequest) -> None:
    if not RELEASES:
        pytest.skip("whole machines take minutes: run `make test-machine`")
    if e := request.session.stash.get(UNAVAILABLE, None):
        forbidden = isinstance(e, tree.Forbidden) and GIVEN == [HERE]
        must = os.environ.get(MUST) and not forbidden
        (pytest.fail if must else pytest.skip)(f"no machine can be had: {e}")


@pytest.fixture
def bare(_possible: None, release: str) -> Iterator[Machine]:
    """A machine of its own that runs, without Moorline."""
    with container.machine(release) as machine:
        machine.start()
        yield machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def stage(
    _possible: None, release: str, pool: Pool, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    """A share, on a machine with Moorline that runs."""
    name = "vol-" + "".join(c for c in request.node.originalname if c.isalnum())[:40]
    stage = Stage(pool.get(release), name)
    yield stage
    if FAILED in request.node.stash:
        sys.stderr.write(stage.journal())
        pool.drop()
        return
    try:
        stage.strike()
    except BaseException:
        pool.drop()
        raise


class VirtualPool:
    """One virtual machine at a time."""

    def __init__(self) -> None:
        self._release = ""
        self._held = ExitStack()
        self._machine: Virtual | None = None

    def get(self, release: str) -> Virtual:
        if self._machine is None or self._release != release or not self._machine.running:
            self.drop()
            machine = self._held.enter_context(virtual.machine(release))
            machine.start()
            self._machine, self._release = machine, release
        return self._machine

    def drop(self) -> None:
        self._machine = None
        self._held.close()


@pytest.fixture(scope="session")
def virtual_pool() -> Iterator[VirtualPool]:
    pool = VirtualPool()
    yield pool
    pool.drop()


@pytest.fixture
def real(
    _possible: None, release: str, virtual_pool: VirtualPool, request: pytest.FixtureRequest
) -> Iterator[Real]:
    """A virtual machine with Moorline that runs, and guests in it."""
    real = Real(virtual_pool.get(release))
    yield real
    if FAILED in request.node.stash:
        sys.stderr.write(real.journal())
        virtual_pool.drop()
        return
    try:
        real.strike()
    except BaseException:
        virtual_pool.drop()
        raise
