"""What stands in for sshd and ssh between compute hosts: Nova makes directories by it.

``serve`` is run on each host, and listens at the host's own address on the lab's network. The
command is ``commands/ssh``: ``ssh [-o OPTION]… ADDRESS WORD…``, as Nova types it.
"""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys

PORT = 8722
_UNREACHABLE = 255


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        command = json.loads(self.rfile.readline())
        done = subprocess.run(
            ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        told = (done.returncode, done.stdout.decode(), done.stderr.decode())
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
    try:
        with socket.create_connection((address, PORT), timeout=20) as to:
            to.sendall(json.dumps(" ".join(command)).encode() + b"\n")
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
