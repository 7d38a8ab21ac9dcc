"""Inferers: they run a network on a scan."""

from .base import RoutingInferer, note_route
from .mirror import MirrorInferer
from .multi_level import MultiLevelInferer
from .routing import ResolutionRoutingInferer
