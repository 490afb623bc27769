"""``python -m chipperf``: the same program as ``perf``."""

from chipperf.cli.main import main

if __name__ == "__main__":
    main()
