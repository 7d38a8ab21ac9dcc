"""Inferers: how a scan is sent through a network."""

from .base import RoutingInferer, note_route
from .mirror import MirrorInferer
from .multi_level import MultiLevelInferer
from .routing import ResolutionRoutingInferer
