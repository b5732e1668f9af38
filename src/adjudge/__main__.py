"""The program ``adjudge``, also as ``python -m adjudge``."""

import gc
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends it without a traceback."""
    try:
        from adjudge.cli.main import main as run_verb

        run_verb()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    finally:
        gc.freeze()  # nothing is left to collect: looking through PyTorch and its kin would take another second


if __name__ == "__main__":
    main()
