"""``python -m chipperf_lm``: make token files of text, with one token for each byte."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chipperf import DataError, PerfError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the files of a command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m chipperf_lm",
        description="Write train.bin and val.bin, a token for each byte of text, for the case gpt2.",
        epilog="Example: python -m chipperf_lm book.txt --out data/book",
    )
    parser.add_argument("text", nargs="+", type=Path, help="files of text, which are joined in this order")
    parser.add_argument("--out", type=Path, required=True, help="directory for the two files; it may not have them yet")
    parser.add_argument("--val-share", type=float, default=0.1, help="share of the text's end for evaluation [0.1]")
    options = parser.parse_args(arguments)
    try:
        print(_convert(options.text, options.out, options.val_share))
    except PerfError as problem:
        print(f"error: {problem.message}\nhint: {problem.hint}", file=sys.stderr)
        return 1
    return 0


def _convert(paths: Sequence[Path], out: Path, val_share: float) -> str:
    from chipperf_lm.sample import as_tokens
    from chipperf_lm.tokens import FILES, write_tokens

    if not 0 < val_share < 1:
        raise DataError(f"--val-share is {val_share}", hint="give a share between 0 and 1, for example 0.1")
    for name in FILES:
        if (out / name).exists():
            raise DataError(f"{out / name} exists already", hint="remove it, or choose another --out")
    try:
        text = b"\n".join(path.read_bytes() for path in paths)
        out.mkdir(parents=True, exist_ok=True)
        eval_tokens = round(len(text) * val_share)
        write_tokens(out, as_tokens(text), eval_tokens)
    except OSError as problem:
        raise DataError(
            f"{problem.filename}: {problem.strerror}", hint="name files of text and a directory that you may write to"
        ) from problem
    return f"{out}: {len(text) - eval_tokens} tokens for training, {eval_tokens} for evaluation; the vocabulary is 256"


if __name__ == "__main__":
    sys.exit(main())
