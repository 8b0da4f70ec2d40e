#!/usr/bin/python
# Copyright the Moorline authors
# SPDX-License-Identifier: Apache-2.0
"""Calls `moorline` on the host; all that it does is told in docs/ansible.md."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.moorline.moorline.plugins.module_utils.command import (
    MEANINGS,
    Answer,
    Command,
)

DOCUMENTATION = r"""
---
module: moorline_attachment
short_description: Volumes that are disks of virtual machines, by Moorline
description:
  - Makes a volume a disk of a guest, now and after reboots, or takes it away. The volume's data is
    never touched.
  - Calls the C(moorline) command on the managed host, and so goes through the host's agent where
    one runs. What an attachment is made of goes by standard input, not by an argument list.
  - What is there otherwise than asked for (another bus, say) is refused. It cannot be changed
    while it is attached.
version_added: 0.1.0
author:
  - The Moorline authors (@moorline)
requirements:
  - moorline on the managed host
options:
  guest:
    description: The guest's name or id, or the beginning of its id (eight characters or more).
    type: str
    required: true
  state:
    description: Whether the guest shall have the volume.
    type: str
    choices: [present, absent]
    default: present
  storage:
    description:
      - The volume, as C(moorline attach) takes it, a URL or an absolute path on the managed host.
      - A storage that needs a password is given by O(connection) or O(connection_file).
    type: str
  connection:
    description:
      - Cinder's connection_info, as JSON. What it holds is kept out of logs and results.
      - Give it as text, by the filter C(to_json). Of a mapping, Ansible blots out each value
        wherever it comes up in the result, ids and paths too.
    type: json
  connection_file:
    description: A file on the managed host with Cinder's connection_info as JSON.
    type: path
  volume:
    description:
      - The volume's id. With O(state=present), needed where the connection has none.
      - With O(state=absent) it names the volume alone, and a whole id (a UUID) of which the guest
        has no disk is absent even where the guest is gone.
    type: str
  format:
    description: Format of the file at O(storage). It is never guessed.
    type: str
    choices: [raw, qcow2, ploop]
  level:
    description: How far it shall come. V(connected) makes it reachable on the host only.
    type: str
    choices: [connected, attached]
    default: attached
  bus:
    description: V(virtio) or V(scsi). As a rule V(virtio).
    type: str
  target:
    description: Such as V(vdb). As a rule the next that is free.
    type: str
  read_only:
    description: The guest may only read.
    type: bool
    default: false
  shared:
    description: Other guests write to it as well, and know how.
    type: bool
    default: false
  on_error:
    description: What an I/O error does to the guest.
    type: str
    choices: [stop, report, enospace]
  label:
    description: What the attachment belongs to. C(moorline apply --prune) goes by it.
    type: str
  wait:
    description: Whether to wait until it is so. Otherwise the agent does what is recorded.
    type: bool
    default: true
  timeout:
    description: Seconds to go on trying.
    type: float
    default: 60
  state_dir:
    description: Where the attachments are kept. As a rule the host's own state.
    type: path
  hypervisor:
    description: The hypervisor's URI. As a rule what the host's configuration says.
    type: str
  config_files:
    description: Files with options, instead of C(/etc/moorline/moorline.conf).
    type: list
    elements: path
    default: []
  executable:
    description: The command, a name or a path.
    type: str
    default: moorline
attributes:
  check_mode:
    description: Can run in check mode and tell what would change.
    support: full
  diff_mode:
    description: Tells what is recorded before and after.
    support: full
"""

EXAMPLES = r"""
- name: A disk on Quobyte
  moorline.moorline.moorline_attachment:
    guest: web01
    storage: quobyte://reg1,reg2/vm-disks/data.qcow2
    format: qcow2

- name: A volume of Cinder's, with what it needs to log on
  moorline.moorline.moorline_attachment:
    guest: web01
    connection: "{{ vault_connection | to_json }}"
  register: attached

- name: Go on after what failed in time (5), may have happened (6), or was busy (8)
  moorline.moorline.moorline_attachment:
    guest: web01
    connection_file: /root/data.json
  register: attached
  until: attached is succeeded or attached.exit_code | default(0) not in [5, 6, 8, 11]
  retries: 3

- name: Away with it
  moorline.moorline.moorline_attachment:
    guest: web01
    volume: 3f2a9a3e-7c54-4b1e-8d7e-1f5a9f0f7c11
    state: absent
"""

RETURN = r"""
volume:
  description: The volume's id; empty where nothing of it is recorded.
  returned: success
  type: str
device:
  description: The guest's name for it at the hypervisor, such as V(vdb).
  returned: success
  type: str
attachment:
  description: The view that C(moorline show) prints, without secrets; null where it is not there.
  returned: success
  type: dict
steps:
  description: The steps that were taken. In check mode empty, where they are not foreseen.
  returned: success
  type: list
  elements: str
exit_code:
  description: What the command ended with.
  returned: failure
  type: int
meaning:
  description: What that exit code says of the attachment.
  returned: failure
  type: str
problem:
  description: The command's own error, an object with C(error), C(message) and C(hint).
  returned: failure
  type: dict
"""

FOUND = 10
"""`moorline diff` ends so if something would change."""
NOT_FOUND = 4
KEPT = (5, 6, 7)
"""Exit codes after which something can have been recorded."""
SOURCES = ("storage", "connection", "connection_file")
SPEC = {
    "guest": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "storage": {"type": "str"},
    "connection": {"type": "json", "no_log": True},
    "connection_file": {"type": "path"},
    "volume": {"type": "str"},
    "format": {"type": "str", "choices": ["raw", "qcow2", "ploop"]},
    "level": {"type": "str", "choices": ["connected", "attached"], "default": "attached"},
    "bus": {"type": "str"},
    "target": {"type": "str"},
    "read_only": {"type": "bool", "default": False},
    "shared": {"type": "bool", "default": False},
    "on_error": {"type": "str", "choices": ["stop", "report", "enospace"]},
    "label": {"type": "str"},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 60},
    "state_dir": {"type": "path"},
    "hypervisor": {"type": "str"},
    "config_files": {"type": "list", "elements": "path", "default": []},
    "executable": {"type": "str", "default": "moorline"},
}


class Attachment:
    """The volume and the guest of this task."""

    def __init__(self, module):
        self.module = module
        self.wanted = module.params
        self._call = Command(module)

    def present(self):
        """Have the guest have it; return the result of the task."""
        before = self._recorded(required=True)
        if self.module.check_mode:
            return self._foreseen(before)
        answer = self._call("apply", *self._patience(), "-f", "-", stdin=self._document())
        if answer.code:
            self._fail(answer, self._is_changed(answer, before))
        (done,) = answer.value
        was, now = _same(before, done["view"]["volume"]), done["view"]
        changed = bool(done["steps"]) or _record(was) != _record(now)
        return self._result(changed, was, now, done["steps"])

    def absent(self):
        """Have the guest not have it; return the result of the task."""
        name = self._name()
        if name is None:
            return self._result(False, None, None)
        before = self._recorded()
        dry_run = ["--dry-run"] if self.module.check_mode else self._patience()
        answer = self._call("detach", *dry_run, "--", self.wanted["guest"], name)
        if answer.code == NOT_FOUND:
            self._demand_no_disk(name, answer)
            return self._result(False, None, None)
        if answer.code:
            self._fail(answer, self._is_changed(answer, before))
        if answer.value is None:
            return self._result(False, None, None)
        steps, left = answer.value["steps"], answer.value["view"]
        was = _same(before, left["volume"])
        changed = not was or was["wanted"] != "absent" or bool(steps)
        now = None if self.wanted["wait"] or self.module.check_mode else left
        return self._result(changed, was, now, [] if self.module.check_mode else steps)

    def _foreseen(self, before):
        change = self._change()
        was = _same(before, change["volume"])
        level, label = self.wanted["level"], self.wanted["label"]
        there = was and was["wanted"] == level and was["next"] == "nothing"
        changed = change["action"] != "none" and not (there and label in (None, was["label"]))
        now = dict(was or {}, wanted=level, label=label or (was or {}).get("label", ""))
        return self._result(changed, was, now if changed else was)

    def _change(self, refused_will_do=False):
        """What `moorline diff` says would be done; *refused_will_do*: if it names the volume."""
        answer = self._call("diff", "-f", "-", stdin=self._document())
        if isinstance(answer.value, list) and answer.value:
            (change,) = answer.value
            if change["action"] != "refused" or (refused_will_do and change["volume"]):
                return change
            answer.problem.setdefault("message", change["why"])
            answer.code = 3 if answer.code == FOUND else answer.code
        return self._fail(answer)

    def _name(self):
        """What the volume is called; None: nothing is recorded of it for this guest."""
        if self.wanted["volume"] or self.wanted["storage"]:
            return self.wanted["volume"] or self.wanted["storage"]
        return self._change(refused_will_do=True)["volume"]

    def _demand_no_disk(self, name, answer):
        """Fail if the guest is not known, or has a disk that is what *name* says, by its path."""
        looked = self._call("disks", "--", self.wanted["guest"])
        if looked.code:
            self._fail(answer)
        if any(each["disk"].get("path") == name for each in looked.value):
            self._fail(
                Answer(7, None, {"message": "a disk that Moorline did not plug has the file"})
            )

    def _recorded(self, required=False):
        """The views of the guest; None: it cannot be told, which *required* does not allow."""
        answer = self._call("list", "--", self.wanted["guest"])
        if answer.code and required:
            self._fail(answer)
        return None if answer.code else answer.value

    def _document(self):
        names = ("guest", *SOURCES, "volume", "format", "level", "bus", "target", "on_error")
        names += ("read_only", "shared")
        entry = {name: self.wanted[name] for name in names if self.wanted[name]}
        if "connection" in entry:
            entry["connection"] = json.loads(entry["connection"])
        label = {"label": self.wanted["label"]} if self.wanted["label"] else {}
        return json.dumps(dict(label, attachments=[entry]))

    def _patience(self):
        wait = "true" if self.wanted["wait"] else "false"
        return ["--timeout", str(self.wanted["timeout"]), "--wait", wait]

    def _fail(self, answer, changed=False):
        """End the task as *answer* says."""
        meaning = MEANINGS.get(answer.code, "the command was ended")
        told = answer.problem.get("message") or f"moorline: {meaning}"
        hint = answer.problem.get("hint")
        self.module.fail_json(
            msg=f"{told} (exit code {answer.code}: {meaning})" + (f"; {hint}" if hint else ""),
            changed=changed,
            exit_code=answer.code,
            meaning=meaning,
            problem=answer.problem,
        )

    def _is_changed(self, answer, before):
        """Whether something was recorded by a command that failed; also if that cannot be told."""
        if self.module.check_mode or answer.code not in KEPT:
            return False
        now = self._recorded()
        if before is None or now is None:
            return True
        return sorted(map(_text, before)) != sorted(map(_text, now))

    def _result(self, changed, was, now, steps=()):
        return {
            "changed": changed,
            "volume": (now or was or {}).get("volume") or "",
            "device": (now or {}).get("device") or "",
            "attachment": now,
            "steps": list(steps),
            "diff": {"before": _record(was), "after": _record(now)},
        }


def _same(views, volume):
    """The view of that volume; None: nothing is recorded."""
    return next((view for view in views or [] if view["volume"] == volume), None)


def _record(view):
    """What is recorded of it, without what comes and goes by itself."""
    names = ("volume", "guest", "wanted", "label", "options", "storage", "format")
    return {name: view[name] for name in names if view.get(name)} if view else {}


def _text(view):
    return json.dumps(_record(view), sort_keys=True)


def main():
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        mutually_exclusive=[SOURCES],
        required_if=[
            ("state", "present", SOURCES, True),
            ("state", "absent", (*SOURCES, "volume"), True),
        ],
    )
    storage = module.params["storage"]
    if storage and "://" in storage and urlsplit(storage).password:
        module.no_log_values.add(urlsplit(storage).password)
    attachment = Attachment(module)
    module.exit_json(**getattr(attachment, module.params["state"])())


if __name__ == "__main__":
    main()
