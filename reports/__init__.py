"""Reports: reads a store folder and renders it as one page. Needs neither torch nor the harness.

from reports import render
render("outputs/resolution")      # -> outputs/resolution/report.html, with readings.csv and summary.md beside it
"""

from reports.page import render
from reports.read import BadStore, load

__all__ = ["BadStore", "load", "render"]
