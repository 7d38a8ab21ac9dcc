"""Inferers: they run a network on a scan."""

from .base import RoutingInferer, note_route
from .landmarks import HIPPOCAMPI, Landmarks, PairTemplate
from .localiser import Localiser
from .mirror import MirrorInferer
from .multi_level import MultiLevelInferer
from .routing import ResolutionRoutingInferer
from .whole_head import HeadNotes, WholeHeadInferer
