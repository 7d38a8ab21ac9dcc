"""Removes repeated errors from the log: engines and handlers log an error that also ends the command."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ignite.engine import Engine
from monai.apps import get_logger

__all__ = ["drop_repeated_errors"]


def _is_repeated(record: logging.LogRecord) -> bool:
    """Whether a record is about an exception that Ignite's engine or MONAI's ``StatsHandler`` raises again."""
    message = str(record.msg)
    return record.levelno == logging.ERROR and (
        "run is terminating due to exception" in message or (record.exc_info and message.startswith("Exception: "))
    )


def _keep(record: logging.LogRecord) -> bool:
    return not _is_repeated(record)


def _classes(base: type) -> Iterator[type]:
    """A class and all classes derived from it."""
    yield base
    for derived in base.__subclasses__():
        yield from _classes(derived)


def drop_repeated_errors() -> None:
    """Drops log records of errors that the program prints at its end anyway, in one line."""
    names = [f"{Engine.__module__}.{engine.__name__}" for engine in _classes(Engine)]  # as Engine names its logger
    for name in names:
        logging.getLogger(name).addFilter(_keep)
    # MONAI gives this logger its handler only if it makes it itself.
    get_logger("monai.handlers.StatsHandler").addFilter(_keep)
