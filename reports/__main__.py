"""`python -m reports outputs/resolution`: render the report of a store again."""

import argparse
import sys
from pathlib import Path

from reports import BadStore, render


def main(argv: list[str] | None = None) -> int:
    """Render one folder; 0 with the page's path on stdout, 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Render the report of a store folder again.")
    parser.add_argument("folder", type=Path, help="output folder of a sweep, such as outputs/resolution")
    try:
        path = render(parser.parse_args(argv).folder)
    except BadStore as error:
        print(f"reports: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
