"""The contrast of a series, from descriptions as scanners and clinics write them, and from its times."""

import pytest

from rare_unet_networks.data.contrasts import contrast_of

WORDS = {
    "t1_mprage_sag_p2_iso": "T1w",
    "MPRAGE": "T1w",
    "MP-RAGE ADNI": "T1w",
    "Sag 3D FSPGR BRAVO": "T1w",
    "AX T1 FLAIR": "T1w",
    "T1 TSE tra native": "T1w",
    "t1_mp2rage_sag_UNI_Images": "T1w",
    "t1_mp2rage_sag_INV1": "an inversion image of MP2RAGE",
    "3D T1 TFE pre contrast": "T1w",
    "AX T1 POST": "T1Gd",
    "t1_mprage_tra +KM": "T1Gd",
    "T1 SE cor +C": "T1Gd",
    "t1ce": "T1Gd",
    "T1w Gd": "T1Gd",
    "MPRAGE_GADO": "T1Gd",
    "t2_tirm_tra_dark-fluid": "FLAIR",
    "3D FLAIR SPACE": "FLAIR",
    "T2 FLAIR ax": "FLAIR",
    "AX T2 TSE": "T2w",
    "t2_space_sag": "T2w",
    "PD TSE": "PDw",
    "localizer": "a localizer",
    "3-plane loc": "a localizer",
    "AAHead_Scout_T1": "a localizer",
    "ep2d_diff_3scan_trace": "diffusion",
    "DTI 64 dir T2": "diffusion",
    "AX T2* GRE": "susceptibility",
    "SWI_Images": "susceptibility",
    "TOF_3D_multi-slab": "an angiography",
    "bold_resting": "perfusion or function",
    "T1 map MOLLI": "a map or a projection",
    "unknown 7": None,
    "": None,
}


@pytest.mark.parametrize("words, contrast", WORDS.items())
def test_words_tell_the_contrast(words, contrast):
    assert contrast_of(words, {}) == contrast


TIMES = [
    ((2.3, 2000, 900), "T1w"),  # MPRAGE
    ((10, 500, None), "T1w"),  # spin echo
    ((100, 5000, None), "T2w"),
    ((90, 9000, 2500), "FLAIR"),
    ((10, 3000, None), None),  # proton density
    ((25, 700, None), None),  # T2*
    ((None, 500, None), None),
]


@pytest.mark.parametrize("times, contrast", TIMES)
def test_without_words_the_times_tell_the_contrast(times, contrast):
    names = ("EchoTime", "RepetitionTime", "InversionTime")
    assert contrast_of("unknown", {n: t for n, t in zip(names, times) if t is not None}) == contrast


def test_words_count_more_than_times_and_an_agent_makes_a_t1_one_with_contrast_agent():
    assert contrast_of("AX T2", {"EchoTime": 5, "RepetitionTime": 500}) == "T2w"
    assert contrast_of("MPRAGE", {}, has_agent=True) == "T1Gd"
    assert contrast_of("AX T2", {}, has_agent=True) == "T2w"
