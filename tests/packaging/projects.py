"""Where the projects of this repository lie, and running programs on them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECTS = {
    "chipperf": ROOT / "core",
    "chipperf-kunlunxin": ROOT / "plugins" / "kunlunxin",
    "chipperf-lm": ROOT / "plugins" / "lm",
    "chipperf-metax": ROOT / "plugins" / "metax",
    "chipperf-nvidia": ROOT / "plugins" / "nvidia",
    "chipperf-tensorboard": ROOT / "plugins" / "tensorboard",
}

WITH_NUMPY = "chipperf-tensorboard"
"""What it requires brings NumPy, which everything else has to do without."""


def run(*command, check=True, **options):
    """Run a command and return it completed; with ``check``, a failure shows what the command said."""
    completed = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert completed.returncode == 0 or not check, f"{command}:\n{completed.stdout}{completed.stderr}"
    return completed
