"""``perf``, ``chipperf`` and ``python -m chipperf``: one program."""

import os
import sys


def main() -> None:
    """Run the program and exit."""
    try:
        from chipperf.cli.main import main as program

        program()
    except KeyboardInterrupt:
        sys.exit("perf: error: interrupted")


if __name__ == "__main__":
    # With -m Python imports from the current directory: a user's ``torch/`` there is not torch.
    if not getattr(sys.flags, "safe_path", False) and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    main()
