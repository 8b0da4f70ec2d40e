# Copyright the Moorline authors
# SPDX-License-Identifier: Apache-2.0
"""Calls the `moorline` command, and reads what it answers."""

from __future__ import annotations

import json

MEANINGS = {
    1: "a defect of Moorline; please report it",
    2: "wrong usage; nothing was changed",
    3: "refused; it is as before",
    4: "no such guest or volume; nothing was changed",
    5: "failed; it did not happen in time, is kept, and is tried again",
    6: "uncertain; it may have happened, is kept, and is looked at when the task is repeated",
    7: "not ours; someone else's mount or disk is in the way, and a person must decide",
    8: "busy; another command owns this host's state, and nothing was changed",
    9: "denied; permission is missing, and nothing was changed",
    11: "unavailable; something does not answer, and nothing was recorded",
}
"""What docs/reference.md says of the exit codes."""


class Answer:
    """What the command printed, and its exit code."""

    def __init__(self, code, value, problem):
        self.code = code
        self.value = value
        self.problem = problem


class Command:
    """The command with the options of the task: its state, hypervisor and files of options."""

    def __init__(self, module):
        self._module = module
        places = ["/usr/local/bin", "/opt/moorline/bin"]
        name = module.params["executable"]
        self._program = module.get_bin_path(name, required=True, opt_dirs=places)
        self._options = ["--output", "json", "--quiet"]
        for option in ("state_dir", "hypervisor"):
            if module.params[option]:
                self._options += ["--" + option.replace("_", "-"), module.params[option]]
        for file in module.params["config_files"]:
            self._options += ["--config-file", file]

    def __call__(self, verb, *words, stdin=""):
        """Run `moorline VERB WORDS`; return an Answer, whatever its exit code is."""
        argv = [self._program, verb, *self._options, *words]
        # Otherwise Ansible would put variables' values into a guest's name.
        code, out, err = self._module.run_command(argv, data=stdin, expand_user_and_vars=False)
        return Answer(code, _json(out), _problem(_json(out), err))


def _json(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def _problem(value, err):
    """The error's object: in the entry of what was printed, or the last line of standard error."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "problem" in value[0]:
        return value[0]["problem"]
    lines = err.strip().splitlines()
    found = _json(err) or _json(lines[-1] if lines else "")
    return found if isinstance(found, dict) else {"message": lines[-1]} if lines else {}
