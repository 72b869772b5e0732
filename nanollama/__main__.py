"""`python -m nanollama` is the command `nanollama`."""

import sys

from nanollama.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
