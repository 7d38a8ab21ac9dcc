"""Payloads that make a folder ``executed`` in the working directory when something runs them, and do no more."""

import os

EXPRESSION = "$__import__('os').mkdir('executed')"
MARKER = "executed"


class Pickled:
    """Is run when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (MARKER,)
