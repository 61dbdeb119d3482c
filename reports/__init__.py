"""Reports: reads a store folder and renders it as one page. Needs neither torch nor the harness.

from reports import render
render("outputs/resolution")      # -> outputs/resolution/report.html, with readings.csv and summary.md beside it
render_comparison("before", "after")    # -> after/comparison.html and comparison.md
"""

from reports.comparison_page import render_comparison
from reports.files import add_link
from reports.page import render
from reports.read import BadStore, load

__all__ = ["BadStore", "add_link", "load", "render", "render_comparison"]
