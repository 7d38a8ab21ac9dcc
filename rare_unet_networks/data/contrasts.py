"""Which contrast an MR series has, by the words of its description or by its echo and repetition time."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["contrast_of", "contrast_of_times", "contrast_of_words"]

# In this order: "T1 FLAIR" is T1, and a post-contrast T1 is T1Gd. Words are compared in small letters, with "_" for
# all characters that are neither letters nor digits nor "+" or "*".
T1 = r"t1|mp_?rage|mp2rage|bravo|f?spgr|tfl3d|3d_?tfe|irspgr|vibe"
AGENT = r"(^|_)(gd|gad|gado\w*|post|ce|t1ce|t1c|t1gd|km|contrast|enhanced)(_|$)|\+c|c\+|\+gd|\+km|\+ce"
NO_AGENT = r"(^|_)(pre|native|nativ|plain|without|ohne|no|non|w_o)(_|$)"
OTHERS = {
    "a localizer": r"local|scout|survey|3_?plane|aahead|loc_|(^|_)loc$",
    "diffusion": r"(^|_)(dwi|dti|diff\w*|adc|trace\w*|fa|tensor|b\d{3,4})(_|$)|ep2d_diff",
    "susceptibility": r"(^|_)(swi|swan|t2\*|t2star|hemo|mip|pha|filt_pha)(_|$)|t2\*",
    "perfusion or function": r"perf|(^|_)(asl|dsc|dce|bold|fmri|rest\w*|cbf|cbv|mtt)(_|$)",
    "an angiography": r"(^|_)(tof|mra|mrv|angio\w*|pc3d)(_|$)",
    "an inversion image of MP2RAGE": r"inv_?[12]($|_)",
    "a map or a projection": r"(^|_)(map\w*|mpr|proj\w*)(_|$)",
}


def contrast_of_words(text: str) -> str | None:
    """Contrast that a description names: ``T1w``, ``T1Gd``, ``T2w``, ``FLAIR``, ``PDw``, or words for another one.

    Returns:
        None if it names none.
    """
    words = re.sub(r"[^a-z0-9+*]+", "_", text.lower()).strip("_")
    for name, pattern in OTHERS.items():
        if re.search(pattern, words):
            return name
    if re.search(T1, words):
        has_agent = re.search(AGENT, words) and not re.search(NO_AGENT, words)
        return "T1Gd" if has_agent else "T1w"
    if re.search(r"flair|dark_?fluid|tirm", words):
        return "FLAIR"
    if re.search(r"t2", words):
        return "T2w"
    return "PDw" if re.search(r"(^|_)(pd|proton\w*)(_|$)", words) else None


def contrast_of_times(times: Mapping[str, float]) -> str | None:
    """Contrast by echo, repetition and inversion time in ms (``EchoTime`` and so on); None if they do not tell.

    The limits lie between the usual values at 1.5 and 3 T: T1 has an echo of 2 to 15 ms and a repetition below 1 s or
    an inversion of 0.5 to 1.4 s; FLAIR an inversion above 1.6 s; T2 an echo above 60 ms.
    """
    echo, repetition, inversion = (times.get(name) for name in ("EchoTime", "RepetitionTime", "InversionTime"))
    if echo is None:
        return None
    if inversion is not None and inversion > 1600 and echo > 40:
        return "FLAIR"
    if echo > 60:
        return "T2w"
    is_short = repetition is not None and repetition < 1000
    if echo <= 15 and (is_short or (inversion is not None and 500 <= inversion <= 1400)):
        return "T1w"
    return None


def contrast_of(text: str, times: Mapping[str, float], has_agent: bool = False) -> str | None:
    """Contrast of a series by its words, else by its times.

    Args:
        text: description and protocol.
        times: see :py:func:`contrast_of_times`.
        has_agent: whether the series names a contrast agent.
    """
    contrast = contrast_of_words(text) or contrast_of_times(times)
    return "T1Gd" if contrast == "T1w" and has_agent else contrast
