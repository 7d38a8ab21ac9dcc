"""Inferers: how a scan is sent through a network."""

from .mirror import MirrorInferer
from .multi_level import MultiLevelInferer
from .routing import ResolutionRoutingInferer
