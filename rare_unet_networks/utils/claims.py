"""Claims: files that mark a case as in progress, so that independent processes can share work in one folder."""

from __future__ import annotations

import atexit
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

__all__ = ["Claims"]

# All claims of this process. A claim with this process's ID that is not listed here was left by another process with
# the same ID, before a restart or in another container.
_held: dict[Path, Claims] = {}


@atexit.register
def _release_everything() -> None:
    for path, claims in list(_held.items()):
        claims.release(path)


def _is_running(pid: int) -> bool:
    """Whether this machine has a process of this ID; True if that cannot be determined."""
    if os.name != "posix":  # on Windows signal 0 is Ctrl+C
        return True
    if pid < 1:  # not a process: 0 and negative numbers are groups
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True


class Claims:
    """Claims of one process. A claim is a file that is created exclusively, so only one process succeeds.

    A claim is stale when its process has died. On the same machine this is seen at once; on another one, when the file
    has not been touched for a while, because a running process touches its claims regularly. If a claim is taken from a
    running process, because it was suspended for long or clocks differ, a case is computed twice, and nothing worse.

    Args:
        heartbeat: seconds between two touches.
        stale_after: seconds without a touch after which a claim is stale. Clocks may differ by nearly as much.
    """

    def __init__(self, heartbeat: float = 30.0, stale_after: float = 600.0) -> None:
        self.heartbeat = heartbeat
        self.stale_after = stale_after
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, path: Path) -> bool:
        """Makes a claim, and its folder if that does not exist.

        Returns:
            True if the claim was made; False if another process, or this one, already has it.
        """
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._create(path) and not (self._remove_stale(path) and self._create(path)):
            return False
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
        return True

    def wait(self, path: Path, interval: float = 0.05) -> None:
        """Waits until no other process has a claim, and makes it."""
        while not self.acquire(path):
            time.sleep(interval)

    def release(self, path: Path) -> None:
        """Removes a claim, if this process still has it."""
        path = path.absolute()
        if _held.get(path) is self:
            # A forked process inherits this list, but the claims belong to its parent.
            if self._read(path) == self._owner and self._owner["pid"] == os.getpid():
                path.unlink(missing_ok=True)
            _held.pop(path, None)

    def release_all(self) -> None:
        """Removes all claims of this object."""
        for path in self._paths():
            self.release(path)
        self._stopped.set()
        self._thread = None

    def _paths(self) -> list[Path]:
        return [path for path, claims in list(_held.items()) if claims is self]

    def _create(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        _held[path] = self
        with os.fdopen(file, "w") as stream:
            json.dump(self._owner, stream)
        return True

    @staticmethod
    def _read(path: Path) -> dict | None:
        """Owner of a claim; None if it is not written yet, or the claim no longer exists."""
        try:
            owner = json.loads(path.read_text())
            return {"host": str(owner["host"]), "pid": int(owner["pid"]), "id": str(owner["id"])}
        except (OSError, ArithmeticError, KeyError, RecursionError, TypeError, ValueError):
            return None

    def _is_stale(self, path: Path, owner: dict | None) -> bool:
        try:
            if time.time() - path.stat().st_mtime > self.stale_after:
                return True
        except FileNotFoundError:
            return False
        if owner is None or owner["host"] != self._owner["host"]:
            return False
        if owner["pid"] == os.getpid():
            return path not in _held
        return not _is_running(owner["pid"])

    def _remove_stale(self, path: Path) -> bool:
        """Removes a stale claim; if several processes try, only one succeeds."""
        owner = self._read(path)
        if not self._is_stale(path, owner):
            return False
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        if self._read(aside) != owner:  # another process was faster, and this is its new claim
            os.rename(aside, path)
            return False
        aside.unlink()
        return True

    def _beat(self) -> None:
        stopped = self._stopped
        while not stopped.wait(self.heartbeat):
            for path in self._paths():
                try:
                    os.utime(path)
                except OSError:  # released in the meantime, or the file system is not reachable for a moment
                    continue
