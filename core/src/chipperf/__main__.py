"""``perf``, ``chipperf`` and ``python -m chipperf``: one program."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the program and exit."""
    try:
        from chipperf.cli.main import main as program

        program()
    except KeyboardInterrupt:
        # Ctrl-C came while modules were imported, or while the program ended.
        sys.exit("perf: error: interrupted")


if __name__ == "__main__":
    # Python imports from the current directory with -m: a user's ``torch/`` there is not torch.
    if not getattr(sys.flags, "safe_path", False) and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    main()
