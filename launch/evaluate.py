"""`cbtrain evaluate` for people who start files, `torchrun` among them."""

import sys

from cbtrain.cli.main import entry

if __name__ == "__main__":
    entry(["evaluate", *sys.argv[1:]])
