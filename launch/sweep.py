"""`cbtrain sweep` for people who start files, `torchrun` among them."""

import sys

from cbtrain.cli.main import entry

if __name__ == "__main__":
    entry(["sweep", *sys.argv[1:]])
