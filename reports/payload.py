"""What the page unpacks in the browser when it is asked for: figures, tables that are closed at first, image sheets.

Compressed it is a tenth of the size, and what nobody opens is never laid out.
"""

import base64
import gzip
import json
from typing import Any

from markupsafe import Markup


class Payload:
    """Collects parts while a template is rendered; each is named by its number."""

    def __init__(self) -> None:
        self._figures: list[str] = []
        self._parts: list[str] = []

    def figure(self, figure: dict[str, Any]) -> int:
        """The number of a plotly figure; parsed when it is drawn."""
        self._figures.append(json.dumps(figure, separators=(",", ":")))
        return len(self._figures) - 1

    def part(self, html: str) -> int:
        """The number of some HTML that the template has escaped; laid out when it is opened."""
        self._parts.append(" ".join(html.split()))
        return len(self._parts) - 1

    def packed(self, sheets: list[dict[str, Any]]) -> Markup:
        """Everything so far, and the image sheets."""
        return packed({"figures": self._figures, "parts": self._parts, "sheets": sheets})


def packed(value: Any) -> Markup:
    """JSON, gzip, base64: nothing in it can end a script element."""
    text = json.dumps(value, separators=(",", ":"))
    return zipped(text)


def zipped(text: str) -> Markup:
    """Text as gzip in base64."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())
