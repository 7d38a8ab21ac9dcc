import traceback

import numpy as np
import pytest
import torch

from rare_unet_networks.utils.errors import is_user_error, one_line, root_cause

FOREIGN = (
    """LoadImage cannot find a suitable reader for file: /x/a.nii.gz.
    Please install the reader libraries.
   The current registered: [<NibabelReader object at 0x7f>].
Traceback (most recent call last):
  File "io/array.py", line 1, in __call__
    img = reader.read(filename)
"""
    + "  ...\n" * 500
)


def caught(call):
    try:
        call()
    except BaseException as error:
        return error


@pytest.mark.parametrize(
    "error, reason",
    [
        (RuntimeError(f"{FOREIGN}nibabel.spatialimages.HeaderDataError: bad header\n\n"),
         "nibabel.spatialimages.HeaderDataError: bad header"),
        (RuntimeError(f"{FOREIGN}OSError: [Errno 28] No space left on device"),
         "OSError: [Errno 28] No space left on device"),
        (OSError(28, "No space left on device", "a.csv"), "No space left on device: 'a.csv'"),
        (FileNotFoundError("a.nii: there is no such file"), "a.nii: there is no such file"),
        (MemoryError(), "not enough memory"),
        (caught(lambda: np.empty((10**7, 10**7), np.float64)),
         "not enough memory: Unable to allocate 728. TiB for an array with shape (10000000, 10000000) "
         "and data type float64"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
         "not enough memory: CUDA out of memory. Tried to allocate 2.00 GiB."),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                      "tried to allocate 38654705664 bytes. Error code 12 (Cannot allocate memory)"),
         "not enough memory: err == 0. 36.0 GiB were asked for"),
        (RuntimeError("CUDA error: an illegal access\nCUDA kernel errors might be reported later.\nCompile with"),
         "RuntimeError: CUDA error: an illegal access"),
        (RuntimeError("unexpected pos 640\nException raised from f at a.cc:1 (most recent call first):\nframe #0: c10"),
         "RuntimeError: unexpected pos 640"),
        (KeyboardInterrupt(), "stopped by the user"),
        (AssertionError(), "AssertionError without a message"),
        (ValueError(), "ValueError without a message"),
        (EOFError(), "the file ends too early"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("\x1b[31mred\x07"), r"\x1b[31mred\x07"),
    ],
)  # fmt: skip
def test_reasons_are_words_in_one_line(error, reason):
    assert root_cause(error) == reason


def test_a_real_traceback_in_a_message_gives_its_last_line():
    try:
        int("x")
    except ValueError:
        text = traceback.format_exc()
    assert root_cause(RuntimeError(text)) == "ValueError: invalid literal for int() with base 10: 'x'"


def test_a_real_allocation_that_fails_is_said_in_words():
    error = caught(lambda: torch.empty(1 << 50))
    assert root_cause(error).startswith("not enough memory") and "enforce" not in root_cause(error)


@pytest.mark.parametrize(
    "error, expected",
    [
        (ValueError(), True),
        (OSError(), True),
        (KeyboardInterrupt(), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("x"), False),
        (TypeError("x"), False),
    ],
)
def test_what_a_user_can_mend_is_distinguished_from_what_a_developer_has_to(error, expected):
    assert is_user_error(error) is expected


def test_text_of_any_language_stays_as_it_is():
    assert one_line("ä 患者 1×2") == "ä 患者 1×2"
    assert one_line("a\nb\udce9") == r"a\nb\udce9"
