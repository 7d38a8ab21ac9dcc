"""Commands as processes: started by a fork server where that is possible, which saves seconds, or as usual."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

_pipes: list[subprocess.Popen] = []
MODULES = ("monai.bundle", "rare_unet_networks")  # that the server runs, as ``python -m`` does


@cache
def _server() -> str:
    """Starts the server of this process; returns its socket."""
    folder = tempfile.mkdtemp(prefix="fork_server_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "socket")
    words = [sys.executable, str(Path(__file__).parent / "fork_server.py"), path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    _pipes.append(server)  # it ends when this process does, which closes its pipe
    assert server.stdout.readline() == b"ready\n"
    return path


class ForkedProcess:
    """As ``subprocess.Popen(words, stdout=PIPE, stderr=STDOUT, text=True)``, as far as tests need it."""

    def __init__(self, words: list[str], cwd: str, environment: dict[str, str]) -> None:
        self.args, self.returncode = words, None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server())
        reading, writing = os.pipe()
        self.stdout = os.fdopen(reading, encoding="utf-8", errors="backslashreplace")
        request = {"module": words[2], "words": words[3:], "cwd": cwd, "environment": environment}
        socket.send_fds(self._connection, [json.dumps(request).encode()], [writing])
        os.close(writing)
        self.pid = int.from_bytes(self._connection.recv(4), "big")

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int.from_bytes(self._connection.recv(4), "big", signed=True)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.poll()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        deadline, chunks = None if timeout is None else time.monotonic() + timeout, []
        while True:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            if not select.select([self.stdout], [], [], left)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            chunk = os.read(self.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            chunks.append(chunk)
        self.wait(timeout)
        self.stdout.close()
        return b"".join(chunks).decode("utf-8", "backslashreplace"), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(words: list[str], cwd: str, environment: dict[str, str]) -> ForkedProcess | subprocess.Popen:
    """Starts a command with its output in ``stdout``."""
    same_paths = environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    is_module = words[:2] == [sys.executable, "-m"] and words[2] in MODULES
    if is_module and same_paths and hasattr(os, "fork") and "NO_FORK_SERVER" not in os.environ:
        return ForkedProcess(words, cwd, environment)
    kwargs = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(words, cwd=cwd, env=environment, **kwargs)


def finish(process: ForkedProcess | subprocess.Popen, timeout: float | None = None) -> subprocess.CompletedProcess:
    """Waits for the end of a command; returns its status and output."""
    text, _ = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, text)
