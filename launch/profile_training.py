"""Where the time and the memory of training go: ``python launch/profile_training.py --config … --out DIR``."""

from cbtrain.cli.profile_training import entry

if __name__ == "__main__":
    entry()
