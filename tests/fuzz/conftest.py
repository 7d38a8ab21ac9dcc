"""The small untrained networks of the security tests."""

from ..security.conftest import weights  # noqa: F401
