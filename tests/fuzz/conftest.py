"""The small untrained network of the bundles' tests."""

from ..bundles.conftest import small_weights  # noqa: F401
