"""The mutants that the operators make of the good plugin, each with one fault in one hook, and those without one."""

from __future__ import annotations

import ast
from fnmatch import fnmatchcase

from acme_stack import PLUGIN_SOURCE

from mutants.equivalent import EQUIVALENT
from mutants.mutant import Change, Mutant
from mutants.operators import edits, traced


def generate() -> list[Mutant]:
    """Return every mutant, named ``hook:operator:place``, hook by hook."""
    source = PLUGIN_SOURCE.read_text(encoding="utf-8")
    found: dict[str, list[Mutant]] = {}
    for statement, hook in _hooks(source).items():
        old = _segment(source, statement)
        for edit in edits(statement):
            changes = (Change(old=old, new=edit.text),)
            mutant = Mutant(name=f"{hook}:{edit.operator}:{edit.place}", kills=(), changes=changes)
            found.setdefault(hook, []).append(mutant)
    return [mutant for mutants in found.values() for mutant in mutants]


def hook_of(mutant: Mutant) -> str:
    """Return the hook that a generated mutant breaks."""
    return mutant.name.partition(":")[0]


def good_plugin_with_trace(path: str) -> Mutant:
    """Return the good plugin with hooks that write their names into a file whenever one is called."""
    source = PLUGIN_SOURCE.read_text(encoding="utf-8")
    hooks = [statement for statement in _hooks(source) if isinstance(statement, ast.FunctionDef)]
    changes = tuple(Change(old=_segment(source, hook), new=traced(hook, path)) for hook in hooks)
    return Mutant(name="good_with_trace", kills=(), changes=changes)


def equivalents(mutants: list[Mutant]) -> dict[str, str]:
    """Return the mutants that are no worse than the good plugin, with the reason.

    Raises:
        ValueError: A pattern fits no mutant.
    """
    names = [mutant.name for mutant in mutants]
    reasons: dict[str, str] = {}
    for pattern, reason in EQUIVALENT.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise ValueError(f"no mutant has the name {pattern} any more: take it out of equivalent.py")
        reasons |= dict.fromkeys(fitting, reason)
    return reasons


def _hooks(source: str) -> dict[ast.stmt, str]:
    """Return each hook, and each constant with the first hook that uses it, itself or for another constant."""
    hooks: dict[ast.stmt, str] = {}
    users: dict[str, str] = {}
    for statement in reversed(ast.parse(source).body):
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        match statement:
            case ast.FunctionDef(decorator_list=[_, *_], name=name):
                hooks[statement] = name
            case ast.AnnAssign(target=ast.Name(id=name)):
                hooks[statement] = users[name]
            case _:
                continue
        # The plugin is read from its end, so that the first user stays.
        users |= dict.fromkeys(used, hooks[statement])
    return dict(reversed(hooks.items()))


def _segment(source: str, statement: ast.stmt) -> str:
    decorators = getattr(statement, "decorator_list", [])
    first = decorators[0].lineno if decorators else statement.lineno
    return "".join(source.splitlines(keepends=True)[first - 1 : statement.end_lineno]).rstrip("\n")
