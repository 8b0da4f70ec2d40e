"""The messages of etcd's API that Moorline sends and reads, and no others.

They are described here and made by protobuf when this module is imported: generated code
would bind us to one release of protobuf's runtime
(https://protobuf.dev/support/cross-version-runtime-guarantee). They lie in a pool of their
own, beside whatever else in the process speaks with etcd.

Names and numbers are those of etcd's ``api/etcdserverpb/rpc.proto``, ``mvccpb/kv.proto`` and
``authpb/auth.proto`` (v3.4 to v3.7). Two liberties, which look the same on the wire: enums
are numbers, and members of a ``oneof`` are optional fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_HEADER_ONLY = (
    "AuthEnableResponse AuthRoleAddResponse AuthRoleDeleteResponse AuthRoleGrantPermissionResponse"
    " AuthRoleRevokePermissionResponse AuthUserAddResponse AuthUserDeleteResponse"
    " AuthUserGrantRoleResponse PutResponse"
)
_EMPTY = (
    "AuthEnableRequest AuthRoleListRequest AuthUserListRequest StatusRequest WatchProgressRequest"
)
_DESCRIBED = """
ResponseHeader: cluster_id=1 uint64, member_id=2 uint64, revision=3 int64, raft_term=4 uint64
KeyValue: key=1 bytes, create_revision=2 int64, mod_revision=3 int64, version=4 int64, value=5 bytes
RangeRequest: key=1 bytes, range_end=2 bytes, limit=3 int64, revision=4 int64, keys_only=8 bool
RangeResponse: header=1 ResponseHeader, kvs=2 *KeyValue, more=3 bool, count=4 int64
PutRequest: key=1 bytes, value=2 bytes
DeleteRangeRequest: key=1 bytes, range_end=2 bytes
DeleteRangeResponse: header=1 ResponseHeader, deleted=2 int64
RequestOp: request_range=1 RangeRequest, request_put=2 PutRequest, \
request_delete_range=3 DeleteRangeRequest
ResponseOp: response_range=1 RangeResponse, response_put=2 PutResponse, \
response_delete_range=3 DeleteRangeResponse
Compare: result=1 int32, target=2 int32, key=3 bytes, mod_revision=6 int64
TxnRequest: compare=1 *Compare, success=2 *RequestOp, failure=3 *RequestOp
TxnResponse: header=1 ResponseHeader, succeeded=2 bool, responses=3 *ResponseOp
WatchRequest: create_request=1 WatchCreateRequest, progress_request=3 WatchProgressRequest
WatchCreateRequest: key=1 bytes, range_end=2 bytes, start_revision=3 int64, \
progress_notify=4 bool, watch_id=7 int64
WatchResponse: header=1 ResponseHeader, watch_id=2 int64, created=3 bool, canceled=4 bool, \
compact_revision=5 int64, cancel_reason=6 string, events=11 *Event
Event: type=1 int32, kv=2 KeyValue
StatusResponse: header=1 ResponseHeader, version=2 string
AlarmRequest: action=1 int32
AlarmMember: memberID=1 uint64, alarm=2 int32
AlarmResponse: header=1 ResponseHeader, alarms=2 *AlarmMember
UserAddOptions: no_password=1 bool
AuthUserAddRequest: name=1 string, options=3 UserAddOptions
AuthUserDeleteRequest: name=1 string
AuthUserGrantRoleRequest: user=1 string, role=2 string
AuthUserListResponse: header=1 ResponseHeader, users=2 *string
Permission: permType=1 int32, key=2 bytes, range_end=3 bytes
AuthRoleAddRequest: name=1 string
AuthRoleDeleteRequest: role=1 string
AuthRoleListResponse: header=1 ResponseHeader, roles=2 *string
AuthRoleGetRequest: role=1 string
AuthRoleGetResponse: header=1 ResponseHeader, perm=2 *Permission
AuthRoleGrantPermissionRequest: name=1 string, perm=2 Permission
AuthRoleRevokePermissionRequest: role=1 string, key=2 bytes, range_end=3 bytes
"""

EQUAL = 0
"""Of ``Compare.CompareResult``."""
MOD = 2
"""Of ``Compare.CompareTarget``: the revision of the last change."""
DELETE = 1
"""Of ``Event.EventType``."""
NO_SPACE = 1
"""Of ``AlarmType``."""

_PACKAGE = "moorline.etcd"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _lines() -> Iterator[tuple[str, str]]:
    for line in _DESCRIBED.strip().splitlines():
        name, _, fields = line.partition(":")
        yield name, fields
    yield from ((name, "header=1 ResponseHeader") for name in _HEADER_ONLY.split())
    yield from ((name, "") for name in _EMPTY.split())


def _described() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="moorline/etcd.proto", package=_PACKAGE)
    for name, fields in _lines():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(",")):
            spelled, kind = field.split()
            label, number = spelled.split("=")
            _add(message, label, int(number), kind)
    return file


def _add(message: Any, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number)
    field.label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    scalar = getattr(_FIELD, f"TYPE_{kind.upper()}", None)
    if scalar is None:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = scalar


def _made() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_described().SerializeToString())
    return SimpleNamespace(
        **{
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
            for name, _ in _lines()
        }
    )


messages: Any = _made()
"""The classes, by the names of etcd's messages."""
