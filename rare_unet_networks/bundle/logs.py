"""One line for an error that ends a command: engines and their handlers log it, too, and with a traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ignite.engine import Engine

__all__ = ["drop_repeated_errors"]


def _is_repeated(record: logging.LogRecord) -> bool:
    """Whether a record tells of an exception that Ignite's engine, or MONAI's ``StatsHandler``, then raises again."""
    message = str(record.msg)
    return record.levelno == logging.ERROR and (
        "run is terminating due to exception" in message or (record.exc_info and message.startswith("Exception: "))
    )


def _keep(record: logging.LogRecord) -> bool:
    return not _is_repeated(record)


def _classes(base: type) -> Iterator[type]:
    yield base
    for derived in base.__subclasses__():
        yield from _classes(derived)


def drop_repeated_errors() -> None:
    """Keeps errors of engines out of the log that the end of the program says anyway, in one line."""
    for engine in _classes(Engine):
        logging.getLogger(f"{Engine.__module__}.{engine.__name__}").addFilter(_keep)  # as Engine names its logger
