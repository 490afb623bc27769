"""``perf``, ``chipperf`` and ``python -m chipperf``: one program."""

import gc
import os
import sys
from contextlib import suppress


def forget_empty_parts() -> None:
    """Let neither this process nor those that it starts import from the current directory.

    Python takes an empty part, as of ``PYTHONPATH=/lib:$PYTHONPATH``, for the current directory.
    """
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if len(parts) > 1 and "" in parts:
        named = list(filter(None, parts))
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
        with suppress(OSError):
            here = os.getcwd()
            if here not in map(os.path.abspath, named):
                sys.path[:] = [path for path in sys.path if path != here]


def main() -> None:
    """Run the program and exit."""
    # What is imported lives as long as the program. A search for garbage in it, again and again and once more at the
    # end, takes a fifth of the time of a small command.
    gc.set_threshold(100_000)
    forget_empty_parts()
    try:
        from chipperf.cli.main import main as program

        program()
    except KeyboardInterrupt:
        sys.exit("perf: error: interrupted")
    finally:
        gc.freeze()


if __name__ == "__main__":
    # With -m Python imports from the current directory: a user's ``torch/`` there is not torch.
    if not getattr(sys.flags, "safe_path", False) and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    main()
