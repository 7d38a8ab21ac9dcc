"""A page with a table and pictures of all cases of a folder of predictions."""

from .figures import figure_of
from .page import can_report, collect, write_report
from .pictures import draw_picture
