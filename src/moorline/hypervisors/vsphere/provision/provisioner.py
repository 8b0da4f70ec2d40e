"""Makes requested machines: a disk from an image, on a datastore that was chosen for it.

How far a machine came is read off the machine. Launching again finishes it, or
removes a half-made one and begins anew; nothing is remembered elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyVmomi import vim, vmodl

from moorline.errors import (
    Conflict,
    Failed,
    MoorlineError,
    NotFound,
    NotOurs,
    Refused,
    Unavailable,
    Uncertain,
)
from moorline.hypervisors.vsphere import device_specs
from moorline.hypervisors.vsphere.client import tasks
from moorline.hypervisors.vsphere.client.properties import collector, everywhere, fetch
from moorline.hypervisors.vsphere.client.session import Session
from moorline.hypervisors.vsphere.client.tasks import Progress, no_progress
from moorline.hypervisors.vsphere.inventory import Inventory
from moorline.hypervisors.vsphere.provision import image_import
from moorline.hypervisors.vsphere.provision.datastore_choice import Wanted, choose
from moorline.hypervisors.vsphere.provision.machine_request import (
    MachineRequest,
    machine_spec,
)
from moorline.hypervisors.vsphere.provision.machine_state import (
    MACHINE_STATE_READS,
    MachineState,
    Stage,
    machine_state,
)
from moorline.hypervisors.vsphere.provision.made_elsewhere import MadeElsewhere
from moorline.hypervisors.vsphere.provision.placement import Places
from moorline.hypervisors.vsphere.provision.removal import Removal
from moorline.hypervisors.vsphere.provision.storage_policies import matching
from moorline.hypervisors.vsphere.virtual_machine import WHOLE
from moorline.ports.datastores import Choice

_TURNS = 3
"""Looks at a machine that vCenter goes on changing."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a requested machine goes."""

    folder: Any
    pool: Any
    datastore: str
    size: int
    profile: str


class Provisioner:
    """Makes, starts, stops and removes machines. *task_deadline*: seconds that a task may take."""

    def __init__(self, session: Session, *, task_deadline: float = 600.0) -> None:
        self._session = session
        self._inventory = Inventory(session)
        self._places = Places(session)
        self._elsewhere = MadeElsewhere(session, self._inventory, self._places)
        self._removal = Removal(session, self._inventory, self.look, deadline=task_deadline)
        self._task_deadline = task_deadline

    def choose(self, request: MachineRequest) -> Choice:
        """Judge the datastores of the request's cluster. Raises Refused, NotFound, Unavailable."""
        return self._choose(request)[0]

    def look(self, name: str) -> MachineState:
        """See how far the machine called *name* came.

        Raises Refused if there are several, Unavailable if vCenter cannot tell of it.
        """
        what = f"machine {name} cannot be looked at"
        refs = [
            ref
            for ref, values in everywhere(self._session, what, vim.VirtualMachine, ("name",))
            if values["name"] == name
        ]
        if len(refs) > 1:
            raise Refused(f"there are {len(refs)} machines called {name}")
        if not refs:
            return MachineState(Stage.ABSENT)
        sources = [collector.ObjectSpec(obj=refs[0], skip=False)]
        try:
            ref, values = fetch(
                self._session, what, sources, {vim.VirtualMachine: MACHINE_STATE_READS}
            )[0]
        except NotFound:
            return MachineState(Stage.ABSENT)  # it went meanwhile
        if "config.instanceUuid" not in values:
            raise Unavailable(f"{what}: it is {values.get('runtime.connectionState')}")
        return machine_state(ref, values)

    def check(self, request: MachineRequest) -> None:
        """Refuse now what :meth:`make` would refuse before it makes something."""
        seen = self.look(request.name)
        _refuse_other(request, seen)
        if seen.stage in (Stage.ABSENT, Stage.HALF):
            self.choose(request).best()
        else:
            self._elsewhere.refuse(request, seen)

    def make(self, request: MachineRequest, progress: Progress = no_progress) -> MachineState:
        """Make the machine whole and off, from whatever state it is in; one that runs stays so.

        An import may take as long as its bytes need. Raises Refused (nothing of
        it is left), Failed, Uncertain, NotOurs; making it again goes on.
        """
        made = False
        for turn in range(len(Stage)):
            seen = self.look(request.name) if turn == 0 else self._look_again(request.name)
            _refuse_other(request, seen)
            if seen.stage in (Stage.OFF, Stage.ON):
                if not made:
                    self._elsewhere.refuse(request, seen)
                return seen
            if seen.stage is Stage.HALF:
                self._destroy(request.name, seen)
            else:
                made = self._make(request, progress)
        raise Uncertain(f"machine {request.name} does not become whole")

    def start(self, name: str) -> None:
        """Power on a machine that was launched; that it runs already is success.

        Raises NotFound, NotOurs, Refused (it is half made), Failed, Uncertain.
        """
        seen = self.look(name)
        if seen.stage is Stage.ABSENT:
            raise NotFound(f"there is no machine {name}")
        if seen.stage is Stage.FOREIGN:
            raise NotOurs(f"Moorline did not make the machine {name}")
        if seen.stage is Stage.HALF:
            raise Refused(
                f"machine {name} is half made or half removed", hint="launch it again, or remove it"
            )
        if seen.stage is Stage.OFF:
            self._power_on(name, seen)

    def stop(self, name: str) -> None:
        """Cut the power of a machine that was launched; off or gone already is success."""
        seen = self.look(name)
        if seen.running and seen.stage is not Stage.FOREIGN:
            self._power_off(name, seen)

    def check_removal(self, name: str) -> None:
        """Refuse now what :meth:`remove` would refuse; change nothing."""
        seen = self.look(name)
        if seen.stage is Stage.FOREIGN:
            raise NotOurs(f"Moorline did not make the machine {name}")
        if seen.stage is not Stage.ABSENT:
            self._removal.refuse(name, seen)

    def remove(self, name: str) -> bool:
        """Destroy a machine that was launched, with its disk; return whether there was one.

        Raises Refused if volumes are attached to it, which would go with it, or
        if another machine has its disk; NotOurs, Failed, Uncertain.
        """
        seen = self.look(name)
        if seen.stage is Stage.FOREIGN:
            raise NotOurs(f"Moorline did not make the machine {name}")
        if seen.stage is Stage.ABSENT:
            return False
        try:
            self._destroy(name, seen)
        except NotFound:  # somebody, such as a command that was killed, removes it, too
            if self.look(name).stage is not Stage.ABSENT:
                raise
        return True

    # --- steps -----------------------------------------------------------------

    def _look_again(self, name: str) -> MachineState:
        """Look after a change; an error of the look is Uncertain, as the change was made."""
        try:
            return self.look(name)
        except (Refused, Failed) as blind:
            raise Uncertain(f"machine {name} was changed, and {blind.message}") from blind

    def _make(self, request: MachineRequest, progress: Progress) -> bool:
        """Make it; False: a call of a killed command was carried out after we looked."""
        place = self._place(request)
        spec = machine_spec(request, place.datastore, place.size, place.profile)
        what = f"machine {request.name} is not made"
        try:
            if request.image is None:
                start = partial(place.folder.CreateVM_Task, spec, place.pool)
                self._bring(request.name, _is(Stage.OFF), what, start, progress)
                return True
            self._import(what, request, spec, place, progress)
            self._finish(request)
            return True
        except MoorlineError as error:
            if self._is_taken(request.name, error):
                return False
            if request.image is not None:
                self._clear(request.name, error)
            told = isinstance(error.__cause__, vmodl.MethodFault) and not isinstance(error, Failed)
            if request.thin is None or error.hint or not told:
                raise
            # Not all datastores that make only one kind of disk say so, and there is no fault for
            # it.
            other = "--thin" if request.thin is False else "--eager"
            hint = f"{place.datastore} may make no such disk: leave the option out, or say {other}"
            raise type(error)(error.message, hint=hint) from error

    def _is_taken(self, name: str, error: MoorlineError) -> bool:
        """Whether *error* says that there is a machine of that name already, and there is one."""
        taken = isinstance(error.__cause__, vim.fault.DuplicateName)
        return taken and self.look(name).stage is not Stage.ABSENT

    def _import(
        self, what: str, request: MachineRequest, spec: Any, place: _Place, progress: Progress
    ) -> None:
        assert request.image is not None
        wanted = vim.vm.VmImportSpec(configSpec=spec)
        with image_import.held(
            self._session,
            what,
            lambda: place.pool.ImportVApp(wanted, place.folder),
            deadline=self._task_deadline,
        ) as lease:
            lease.upload(request.image.pieces(place.size), request.image.length, progress)

    def _finish(self, request: MachineRequest) -> None:
        for turn in reversed(range(_TURNS)):
            seen = self._look_again(request.name)
            if seen.stage is not Stage.HALF or seen.machine is None:
                raise Uncertain(f"machine {request.name} was brought in, and is {seen.stage.value}")
            if seen.machine.touched:
                raise Uncertain(f"machine {request.name} was brought in, and somebody removes it")
            whole, _ = device_specs.launch_mark(seen.machine, WHOLE, seen.digest)
            call = partial(seen.ref.ReconfigVM_Task, whole)
            try:
                self._bring(
                    request.name, _is(Stage.OFF), f"machine {request.name} is not finished", call
                )
                return
            except Conflict:  # vCenter has changed it since
                if not turn:
                    raise

    def _power_on(self, name: str, seen: MachineState) -> None:
        what = f"machine {name} is not powered on"
        self._bring(name, _is(Stage.ON), what, seen.ref.PowerOnVM_Task)

    def _clear(self, name: str, error: MoorlineError) -> None:
        """Remove what an import left, which vCenter does by itself as a rule."""
        try:
            seen = self.look(name)
            if seen.stage is Stage.HALF:
                self._destroy(name, seen)
        except MoorlineError as left:
            raise Uncertain(
                f"{error.message}; and what was made of it is left: {left.message}",
                hint="launching or removing it again clears it up",
            ) from error

    def _power_off(self, name: str, seen: MachineState) -> None:
        what = f"machine {name} is not powered off"
        self._bring(name, lambda now: not now.running, what, seen.ref.PowerOffVM_Task)

    def _destroy(self, name: str, seen: MachineState) -> None:
        seen, word = self._removal.begin(name, seen)
        what = f"machine {name} is not removed"
        try:
            if seen.running:
                self._power_off(name, seen)
            self._bring(name, _is(Stage.ABSENT), what, seen.ref.Destroy_Task)
        except (Refused, Failed):
            self._removal.end(name, seen, word)
            raise

    # --- where -----------------------------------------------------------------

    def _place(self, request: MachineRequest) -> _Place:
        choice, cluster, profile = self._choose(request)
        best = choice.best()
        center = self._inventory.datacenter(cluster)
        return _Place(
            folder=self._places.folder(center, request.folder),
            pool=self._places.pool(cluster, request.resource_pool),
            datastore=best.datastore.name,
            size=best.size,
            profile=profile,
        )

    def _choose(self, request: MachineRequest) -> tuple[Choice, Any, str]:
        """The choice, the cluster that it was made in, and the policy's id."""
        profile, ids = matching(self._session, request.policy) if request.policy else ("", None)
        wanted = Wanted(
            size=request.size,
            kind=request.kind,
            names=request.datastores,
            policy=request.policy,
            matching=ids,
            thin=request.thin,
            round_up=request.round_up,
            reserve=request.reserve,
        )
        cluster, candidates = self._places.datastores(request.cluster)
        return choose(candidates, wanted), cluster, profile

    def _bring(
        self,
        name: str,
        done: Callable[[MachineState], bool],
        what: str,
        start: Any,
        progress: Progress = no_progress,
    ) -> None:
        """Run a task after which the machine is as *done* says; a look decides whether it is."""
        try:
            tasks.run(self._session, what, start, deadline=self._task_deadline, progress=progress)
        except MoorlineError as error:
            try:
                now = self.look(name)
            except MoorlineError as blind:
                raise Uncertain(f"{error.message}, and {blind.message}") from error
            if not done(now):
                raise


def _is(stage: Stage) -> Callable[[MachineState], bool]:
    return lambda seen: seen.stage is stage


def _refuse_other(request: MachineRequest, seen: MachineState) -> None:
    if seen.stage is Stage.FOREIGN:
        raise NotOurs(f"there is a machine {request.name} that Moorline did not make")
    if seen.stage in (Stage.OFF, Stage.ON) and seen.digest != request.digest():
        raise Refused(
            f"there is a machine {request.name} that was ordered otherwise",
            hint="image, size of the disk, CPUs, memory and adapter must be the same; take another"
            " name, or remove it first",
        )
