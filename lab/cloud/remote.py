"""What stands in for sshd and ssh between compute hosts: Nova makes directories by it.

``serve`` is run on each host, and listens at the host's own address on the lab's network. The
commands are ``commands/ssh``: ``ssh [-o OPTION]… ADDRESS WORD…``, and ``commands/scp``: ``scp -C -r
FILE ADDRESS:PATH`` for one file, as Nova types them.
"""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
from pathlib import Path

PORT = 8722
_UNREACHABLE = 255


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        command, given = json.loads(self.rfile.readline())
        words = ["sh", "-c", command]
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
        told = (done.returncode, done.stdout, done.stderr)
        self.wfile.write(json.dumps(told).encode())


def serve(address: str) -> None:
    """Run what comes. Blocks for ever."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer((address, PORT), _Handler) as server:
        server.serve_forever()


def ssh(words: list[str]) -> int:
    """Run a command on another host, by the shell there; its exit code."""
    while words[0].startswith("-"):
        del words[: 2 if words[0] == "-o" else 1]
    address, *command = words
    return _run(address, " ".join(command), "")


def scp(words: list[str]) -> int:
    """Copy a file, of text, to another host; an exit code."""
    file, target = (word for word in words if not word.startswith("-"))
    address, _, path = target.partition(":")
    return _run(address, f"cat >{path}", Path(file).read_text())


def _run(address: str, command: str, given: str) -> int:
    try:
        with socket.create_connection((address, PORT), timeout=20) as to:
            to.sendall(json.dumps((command, given)).encode() + b"\n")
            to.shutdown(socket.SHUT_WR)
            code, out, error = json.loads(b"".join(iter(lambda: to.recv(65536), b"")))
    except OSError as e:
        sys.stderr.write(f"ssh: connect to host {address}: {e}\n")
        return _UNREACHABLE
    sys.stdout.write(out)
    sys.stderr.write(error)
    return int(code)


if __name__ == "__main__":
    serve(sys.argv[1])
