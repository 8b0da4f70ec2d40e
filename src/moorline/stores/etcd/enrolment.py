"""Who belongs to the fleet: etcd's users, their roles, and the fleet's epoch.

Every step can be repeated: what is there already is left, what is missing is made. A
caller that is told Uncertain calls again.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from moorline.errors import Conflict, NotFound, Refused
from moorline.ports import At, Delete, Entry, Put
from moorline.ports.limits import prefix_ends
from moorline.stores.etcd import grants
from moorline.stores.etcd.access import Access
from moorline.stores.etcd.client import Client
from moorline.stores.etcd.grants import ADMINISTRATOR, CONTROLLER, ENROLLED, EPOCH, Grant
from moorline.stores.etcd.messages import messages
from moorline.stores.etcd.store import EtcdStore


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A host of the fleet: which certificate it has, and what to seal for it with."""

    host: str
    number: int
    """Of the certificate that was made last."""
    box: str
    """The public key of its sealed box; '' for a host that was revoked: nothing is for it."""
    at: float
    """When, for people (seconds since 1970)."""

    @property
    def user(self) -> str:
        return grants.host_user(self.host, self.number)


class Enrolment:
    """The fleet's users, as root. Calls raise as those of the store do.

    *access*: with the certificate of the user root. It is not kept by controllers.
    """

    def __init__(self, access: Access) -> None:
        self._client = Client(access)
        self._store = EtcdStore(access)

    def close(self) -> None:
        self._client.close()
        self._store.close()

    @property
    def warnings(self) -> list[str]:
        """What is known against the releases of the members that were used; for people."""
        return self._client.warnings

    def initialise(self, *, dry_run: bool = False) -> str:
        """Make etcd the fleet's: roles, root, authentication, and the epoch, which is returned.

        Last of all authentication is enabled: from then on who has no certificate of a
        user has nothing. Raises Refused if etcd has other users' entries already. *dry_run*:
        only look; the epoch is '' where there is none yet.
        """
        self._is_for_us()
        if dry_run:
            return self._known_epoch()
        self._role(ADMINISTRATOR, ())
        self._user(ADMINISTRATOR, ADMINISTRATOR)
        self._role(CONTROLLER, grants.controller_grants())
        epoch = self._epoch()
        self._client.tell(
            "Auth/AuthEnable", messages.AuthEnableRequest(), messages.AuthEnableResponse
        )
        return epoch

    def restored(self, *, dry_run: bool = False) -> str:
        """Say that a backup of etcd was brought back: the epoch is another one from now on.

        *dry_run*: return the one that it is.
        """
        if dry_run:
            return self._known_epoch()
        entry = self._store.get(EPOCH)
        fresh = secrets.token_hex(16)
        self._store.commit(
            [At(EPOCH, entry.revision if entry else 0)], [Put(EPOCH, fresh.encode())]
        )
        return fresh

    def controller(self, name: str) -> str:
        """Make the user of a controller, or of a person who gives orders; return its name."""
        user = grants.controller_user(name)
        self._user(user, CONTROLLER)
        return user

    def enrol(self, host: str, box: str = "", *, dry_run: bool = False) -> Enrolled:
        """Make a host one of the fleet, with a user of its own for its next certificate.

        *box*: the public key of its sealed box; without one, it keeps the one that it has.
        The users of its earlier certificates stay until :meth:`retire`, so that the host can
        change from one to the other.
        Raises Conflict (somebody else enrolled it in this moment), Refused (no such name, or
        it was revoked and has no box to keep), NotFound (it has none, as it is not enrolled).
        """
        role = grants.host_role(host)
        entry = self._store.get(ENROLLED + host)
        if not (box or entry):
            raise self._not_enrolled(host)
        before = _decoded(entry) if entry else Enrolled(host, 0, "", 0)
        if not (box or before.box):
            raise Refused(
                f"{host} was revoked, and has no sealed box that it could keep",
                hint=f"moorline fleet enrol {host}",
            )
        number = max(before.number, *self._numbers(host), 0) + 1
        enrolled = Enrolled(host, number, box or before.box, time.time())
        if dry_run:
            return enrolled
        # First, so that of two who enrol it one is told so, before there is a user for either.
        self._store.commit(
            [At(ENROLLED + host, entry.revision if entry else 0)], [_encoded(enrolled)]
        )
        self._role(role, grants.host_grants(host))
        self._user(enrolled.user, role)
        return enrolled

    def retire(self, host: str, *, dry_run: bool = False) -> list[str]:
        """Revoke a host's certificates but for the last one; return whose users are gone.

        Raises NotFound (it is not enrolled).
        """
        enrolled = self.enrolled(host)
        gone = [number for number in self._numbers(host) if number != enrolled.number]
        users = [grants.host_user(host, number) for number in gone]
        return users if dry_run else self._delete_users(users)

    def revoke(self, host: str, *, dry_run: bool = False) -> list[str]:
        """Revoke all of a host's certificates; return whose users are gone.

        A watch that it has open goes on until its connection is cut; what it still tells is
        sealed for the host's box. So nothing may be sealed for that box from now on, and the
        host is without one until it is enrolled again, with another. Revoked already is success.
        Raises NotFound (it was never enrolled).
        """
        entry = self._store.get(ENROLLED + grants.named(host))
        if entry is None and not self._numbers(host):
            raise self._not_enrolled(host)
        if dry_run:
            return [grants.host_user(host, number) for number in self._numbers(host)]
        return self._revoke(host, entry)

    def _revoke(self, host: str, entry: Entry | None) -> list[str]:
        if entry and (was := _decoded(entry)).box:
            sealed_no_more = Enrolled(host, was.number, "", time.time())
            self._store.commit([At(entry.key, entry.revision)], [_encoded(sealed_no_more)])
        gone = self._delete_users(grants.host_user(host, n) for n in self._numbers(host))
        if grants.host_role(host) in self._roles():
            request = messages.AuthRoleDeleteRequest(role=grants.host_role(host))
            self._client.tell("Auth/RoleDelete", request, messages.AuthRoleDeleteResponse)
        return gone

    def forget(self, host: str) -> None:
        """Revoke a host, and have nothing of it in the list of hosts."""
        self._revoke(host, self._store.get(ENROLLED + grants.named(host)))
        if entry := self._store.get(ENROLLED + host):
            self._store.commit([At(entry.key, entry.revision)], [Delete(entry.key)])

    def enrolled(self, host: str) -> Enrolled:
        """Raises NotFound."""
        entry = self._store.get(ENROLLED + grants.named(host))
        if entry is None:
            raise self._not_enrolled(host)
        return _decoded(entry)

    def _not_enrolled(self, host: str) -> NotFound:
        near = get_close_matches(host, [each.host for each in self.all()])
        hint = f"did you mean {' or '.join(near)}?" if near else "moorline fleet enrolled"
        return NotFound(f"{host} is not enrolled", hint=hint)

    def all(self) -> list[Enrolled]:
        """All hosts, also those that were revoked."""
        return [_decoded(entry) for entry in self._store.list(ENROLLED)[0]]

    def _is_for_us(self) -> None:
        """Raise Refused if etcd has entries of others, who would be locked out."""
        first, end = prefix_ends(grants.ROOT)
        for key, before in ((b"\0", first.encode()), (end.encode(), b"\0")):
            others = messages.RangeRequest(key=key, range_end=before, limit=1, keys_only=True)
            for kv in self._client.ask("KV/Range", others, messages.RangeResponse).kvs:
                raise Refused(
                    f"this etcd has entries of somebody else: {kv.key.decode(errors='replace')}",
                    hint="give the fleet an etcd of its own",
                )

    def _known_epoch(self) -> str:
        entry = self._store.get(EPOCH)
        return entry.value.decode() if entry else ""

    def _epoch(self) -> str:
        fresh = secrets.token_hex(16)
        try:
            self._store.commit([At(EPOCH, 0)], [Put(EPOCH, fresh.encode())])
        except Conflict as e:
            return str(e.current[EPOCH].value.decode())
        return fresh

    def _role(self, role: str, wanted: Iterable[Grant]) -> None:
        """Make a role have these grants and no others."""
        if role not in self._roles():
            request = messages.AuthRoleAddRequest(name=role)
            self._client.tell("Auth/RoleAdd", request, messages.AuthRoleAddResponse)
        if role == ADMINISTRATOR:
            return  # etcd's own: it may do everything
        answer = self._client.ask(
            "Auth/RoleGet", messages.AuthRoleGetRequest(role=role), messages.AuthRoleGetResponse
        )
        had = {(p.permType, p.key.decode(), p.range_end.decode()) for p in answer.perm}
        want = {(grant.kind, grant.key, grant.range_end) for grant in wanted}
        for _, key, end in had - want:
            revoked = messages.AuthRoleRevokePermissionRequest(
                role=role, key=key.encode(), range_end=end.encode()
            )
            self._client.tell(
                "Auth/RoleRevokePermission", revoked, messages.AuthRoleRevokePermissionResponse
            )
        for kind, key, end in sorted(want - had):
            permission = messages.Permission(
                permType=kind, key=key.encode(), range_end=end.encode()
            )
            granted = messages.AuthRoleGrantPermissionRequest(name=role, perm=permission)
            self._client.tell(
                "Auth/RoleGrantPermission", granted, messages.AuthRoleGrantPermissionResponse
            )

    def _user(self, name: str, role: str) -> None:
        if name not in self._users():
            # Without a password, only a certificate makes somebody this user.
            request = messages.AuthUserAddRequest(
                name=name, options=messages.UserAddOptions(no_password=True)
            )
            self._client.tell("Auth/UserAdd", request, messages.AuthUserAddResponse)
        granted = messages.AuthUserGrantRoleRequest(user=name, role=role)
        self._client.tell("Auth/UserGrantRole", granted, messages.AuthUserGrantRoleResponse)

    def _delete_users(self, names: Iterable[str]) -> list[str]:
        gone = []
        for name in names:
            request = messages.AuthUserDeleteRequest(name=name)
            self._client.tell("Auth/UserDelete", request, messages.AuthUserDeleteResponse)
            gone.append(name)
        return gone

    def _numbers(self, host: str) -> list[int]:
        numbers = (grants.user_number(host, user) for user in self._users())
        return sorted(number for number in numbers if number is not None)

    def _users(self) -> set[str]:
        request = messages.AuthUserListRequest()
        return {*self._client.ask("Auth/UserList", request, messages.AuthUserListResponse).users}

    def _roles(self) -> set[str]:
        request = messages.AuthRoleListRequest()
        return {*self._client.ask("Auth/RoleList", request, messages.AuthRoleListResponse).roles}


def _encoded(enrolled: Enrolled) -> Put:
    fields = {"number": enrolled.number, "box": enrolled.box, "at": enrolled.at}
    return Put(ENROLLED + enrolled.host, json.dumps(fields).encode())


def _decoded(entry: Entry) -> Enrolled:
    fields = json.loads(entry.value)
    host = entry.key.removeprefix(ENROLLED)
    return Enrolled(host, fields["number"], fields["box"], fields["at"])
