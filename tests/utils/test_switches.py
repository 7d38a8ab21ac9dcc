import pytest

from rare_unet_networks.utils import is_on


@pytest.mark.parametrize("value", [True, 1, "true", "True", "TRUE", "1"])
def test_on(value):
    assert is_on(value) is True


@pytest.mark.parametrize("value", [False, 0, "false", "False", "FALSE", "0"])
def test_off(value):
    assert is_on(value) is False


@pytest.mark.parametrize("value", ["maybe", "2", None, ""])
def test_neither_is_an_error(value):
    with pytest.raises(ValueError, match="expected true or false"):
        is_on(value)
