"""Making another plugin of the good one, the simulated accelerator's, most often a broken one by one change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from acme_stack import install_plugin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Change:
    """A text in one file of the good plugin, which occurs once, and what stands there in the mutant.

    ``file`` is relative to the directory the plugin is installed in, for example
    ``chipperf_acme-0.1.0.dist-info/METADATA``. A file that is not there is added with ``new``; ``None`` removes it.
    """

    old: str = ""
    new: str | None
    file: str = "chipperf_acme/plugin.py"


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A plugin with one fault and the checks that must find it, or a good one of another shape.

    Attributes:
        name: What is wrong, in a few words with underscores.
        kills: Ids of the checks that fail; all others pass or do not run. A good plugin fails none.
        changes: What makes it broken.
        environment: Variables of the machine it runs on, beside those of the simulated accelerator.
        not_run: Ids of the checks that a good plugin's machine lacks something for; it passes all others.
    """

    name: str
    kills: tuple[str, ...]
    changes: tuple[Change, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    not_run: tuple[str, ...] = ()


def install_mutant(mutant: Mutant, site: Path) -> None:
    """Install the good plugin in ``site`` and break it.

    Raises:
        ValueError: A text that should be replaced does not occur exactly once.
    """
    install_plugin(site)
    for change in mutant.changes:
        path = site / change.file
        if change.new is None:
            path.unlink()
        elif not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change.new, encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
            if text.count(change.old) != 1:
                raise ValueError(f"{mutant.name}: {change.old!r} is {text.count(change.old)} times in {change.file}")
            path.write_text(text.replace(change.old, change.new), encoding="utf-8")
