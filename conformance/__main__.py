"""`python -m conformance`, and the program `conformance`."""

import gc
import os
import sys


def main() -> None:
    """Run a command; Ctrl-C ends it with a word, also while everything is still being loaded."""
    try:
        from conformance.engines.garbage import THRESHOLDS

        gc.set_threshold(*THRESHOLDS)  # what is loaded is hardly ever garbage
        from conformance.commands.main import main as command

        command()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("conformance: interrupted", file=sys.stderr, flush=True)
        os._exit(4)


if __name__ == "__main__":
    main()
