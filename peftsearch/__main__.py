"""`python -m peftsearch`."""

import sys

from peftsearch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
