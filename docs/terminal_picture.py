"""Takes a picture of a terminal in which a command runs: ``python docs/terminal_picture.py PICTURE.svg COMMAND...``.

The command really runs, in a pseudo-terminal of 100 columns. The picture shows the last screen, or with
``--at SECONDS`` the screen at that time, after which the command goes on. Needs pyte (docs/requirements.txt).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import termios
import time
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 100, 30


def screen_of(command: list[str], at_s: float | None) -> pyte.Screen:
    """Run a command to its end and return its screen, as it was after ``at_s`` seconds or at the end."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    stream.feed(f"$ {' '.join(command)}\r\n".encode())
    begun_s = time.monotonic()
    while output := _read(terminal):
        if at_s is None or time.monotonic() - begun_s < at_s:
            stream.feed(output)
    os.waitpid(process, 0)
    return screen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # So Linux says that the other side is closed.
        return b""


def text_of(screen: pyte.Screen) -> Text:
    """Return a screen's characters with their colors, without the empty lines at its end."""
    lines = []
    for number in range(screen.lines):
        line = Text()
        characters = [screen.buffer[number][column] for column in range(screen.columns)]
        for (color, background, bold), alike in groupby(characters, key=attrgetter("fg", "bg", "bold")):
            style = Style(color=_color(color), bgcolor=_color(background), bold=bold)
            line.append("".join(each.data for each in alike), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def _color(name: str) -> str | None:
    if name == "default":
        return None
    named = {"brown": "yellow"}
    return f"#{name}" if len(name) == 6 and name not in named and _is_hexadecimal(name) else named.get(name, name)


def _is_hexadecimal(name: str) -> bool:
    return all(character in "0123456789abcdef" for character in name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--at", type=float, metavar="SECONDS")
    parser.add_argument("picture", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(text_of(screen_of(options.command, options.at)))
    # Without rich's links to fonts, so that whoever looks at the picture asks nobody for them.
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(options.picture), title="perf", code_format=template)
