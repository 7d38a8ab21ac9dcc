"""What the log says of scans and times, and leaves out."""

import logging

import pytest

from rare_unet_networks.utils.logs import SCAN_LOGGERS, SCAN_NAME, name_of, time_in_words, without_scan_warnings


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.2, "1 s"),
        (8.4, "8 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (59 * 60, "59 min"),
        (3599, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_a_time_is_said_in_units_of_its_size(seconds, words):
    assert time_in_words(seconds) == words


@pytest.mark.parametrize(
    "meta, name",
    [
        ({}, "scan"),
        ({"filename_or_obj": "a.nii"}, "a.nii"),
        ({"filename_or_obj": "f/p.nii.gz", SCAN_NAME: "f/p"}, "f/p"),
    ],
)
def test_a_scan_of_several_files_has_a_name_of_its_own(meta, name):
    assert name_of(meta) == name


@pytest.mark.parametrize("name", SCAN_LOGGERS)
def test_warnings_of_scans_are_left_out_within_and_errors_never(caplog, name):
    logger = logging.getLogger(name)
    with caplog.at_level(logging.INFO), pytest.raises(KeyError):
        logger.warning("before")
        with without_scan_warnings():
            logger.warning("within")
            logger.error("error")
            raise KeyError
    logger.warning("after")
    assert caplog.messages == ["before", "error", "after"]


def test_at_debug_they_are_logged(caplog):
    with caplog.at_level(logging.DEBUG), without_scan_warnings():
        logging.getLogger(SCAN_LOGGERS[0]).warning("within")
    assert caplog.messages == ["within"]
