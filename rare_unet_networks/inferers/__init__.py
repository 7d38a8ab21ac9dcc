"""Inferers: how a scan is sent through a network."""

from .mirror import MirrorRoutingInferer
from .multi_level import SeveralLevelsInferer
from .routing import ResolutionRoutingInferer
