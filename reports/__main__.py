"""`python -m reports outputs/resolution`: render the report of a store again; of two, what changed between them."""

import argparse
import sys
from pathlib import Path

from reports import BadStore, render, render_comparison


def main(argv: list[str] | None = None) -> int:
    """Render one folder, or compare two; 0 with the page's path on stdout, 2 with one sentence on stderr."""
    about = "Render the report of a store folder again, or what changed from one folder to another."
    parser = argparse.ArgumentParser(prog="python -m reports", description=about)
    parser.add_argument("folder", type=Path, help="output folder of a sweep, such as outputs/resolution")
    parser.add_argument("after", type=Path, nargs="?", help="a second folder: what changed from the first to this")
    given = parser.parse_args(argv)
    try:
        path = render_comparison(given.folder, given.after) if given.after else render(given.folder)
    except BadStore as error:
        print(f"reports: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
