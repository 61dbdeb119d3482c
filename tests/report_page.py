"""The page read back without a browser: its tags, its visible text, and what it has packed away."""

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

PACKED = "application/octet-stream"


class Page(HTMLParser):
    """Tags and text of the page and of the parts that are laid out when they are opened; figures, sheets, readings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._packed: dict[str, str] = {}
        self._script = ""
        self.feed(path.read_text(encoding="utf-8"))
        payload = self.unpacked("payload")  # raises where the page has none
        self.figures: list[dict[str, Any]] = [json.loads(text) for text in payload["figures"]]
        self.sheets: list[dict[str, Any]] = payload["sheets"]
        self.readings: list[list[Any]] = self.unpacked("long") if "long" in self._packed else []
        for part in payload["parts"]:
            self.feed(part)
        self.text = " ".join(self.text.split())

    def unpacked(self, name: str) -> Any:
        """What the script element of that id holds."""
        return json.loads(gzip.decompress(base64.b64decode(self._packed[name])))

    def rows(self) -> dict[tuple[str, str], list[Any]]:
        """The table of all readings by key and name."""
        return {(row[0], row[6]): row for row in self.readings}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if tag in ("script", "style"):
            self._script = values.get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self._script:
            self._packed[self._script] = self._packed.get(self._script, "") + data
        else:
            self.text += data
