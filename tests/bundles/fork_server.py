"""Starts commands of the bundle runner in forked processes, so that each does not import PyTorch and MONAI anew.

    python fork_server.py SOCKET

Each command is its own process, of which everything is as in ``python -m MODULE …`` except that modules of other
packages are loaded already (about 4 of its 5 seconds). This package is imported by the command itself. The client is
:py:class:`.processes.ForkedProcess`.
"""

import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module

LOADED = (
    "monai.bundle",
    "ignite.engine",
    "ignite.handlers",
    "monai.engines",
    "monai.handlers",
    "monai.losses",
    "nibabel",
    "fire",
)
OPTIONAL = ("scipy.ndimage", "tensorboard", "torch.utils.tensorboard", "tqdm")


def serve(path: str) -> dict:
    """Forks for each command; returns the command, in its process only."""
    for name in LOADED:
        import_module(name)
    for name in OPTIONAL:
        with suppress(ImportError):
            import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies of the processes that wait for a command
    print("ready", flush=True)
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:  # its other end is closed: the tests ended
            sys.exit()
        connection, _ = listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 1)
        if not message:  # the client is gone
            sys.exit()
        if os.fork() == 0:
            break
        connection.close()
        os.close(descriptors[0])
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    command = os.fork()
    if command != 0:  # this process only waits for the command, and reports its end
        os.close(descriptors[0])
        connection.send(command.to_bytes(4, "big"))
        _, status = os.waitpid(command, 0)
        connection.send(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
        os._exit(0)
    connection.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(descriptors[0], stream)
    os.close(descriptors[0])
    return json.loads(message)


def main() -> None:
    request = serve(sys.argv[1])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    sys.path[0] = request["cwd"]  # as for ``python -m``
    sys.argv = ["-m", *request["words"]]  # alter_sys sets the first word
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
