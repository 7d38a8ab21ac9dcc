"""Verifies a MONAI bundle: ``python -m tools.verify_bundle BUNDLE``."""
