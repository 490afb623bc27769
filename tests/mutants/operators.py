"""Operators that break one place of a hook: what is written there, or how often, when and with what it acts.

Each operator is a template. ``{0}`` stands for the expression that it changes, ``{call}`` for the good hook's call.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import chipperf
from chipperf.precisions import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_INTEGER = {
    "times_1024": "{0} * 1024",
    "over_1024": "{0} // 1024",
    "times_1000": "{0} * 1000",
    "doubled": "{0} * 2",
    "plus_one": "{0} + 1",
    "nine_tenths": "{0} * 9 // 10",
    "negated": "-{0}",
    "zero": "0",
    "as_float": "float({0})",
    "as_text": "str({0})",
}
_FLOAT = {**_INTEGER, "over_1024": "{0} / 1024", "nine_tenths": "{0} * 0.9", "as_float": "{0}"}
_TEXT = {"emptied": "''", "replaced": "'other'"}
_TRUTH = {"true": "True", "false": "False", "negated": "not {0}"}
_SEQUENCE = {
    "emptied": "()",
    "first_only": "{0}[:1]",
    "last_only": "{0}[-1:]",
    "reversed": "{0}[::-1]",
    "doubled": "{0} * 2",
    "as_list": "list({0})",
}
_OF_TYPE: Mapping[type, Mapping[str, str]] = {
    bool: _TRUTH,
    int: _INTEGER,
    float: _FLOAT,
    str: _TEXT,
    tuple: _SEQUENCE,
    frozenset: {"emptied": "frozenset()", "as_set": "set({0})"},
}
_UNSET: Mapping[type, str] = {bool: "True", int: "1", float: "1.0", str: "'other'"}
"""What a field gets that the good plugin leaves at its default."""

_DEVICE = "__import__('torch').device"
_OF_ARGUMENT: Mapping[str, Mapping[str, str]] = {
    "torch.device": {
        "first_card": f"{_DEVICE}(_DEVICE_TYPE, 0)",
        "last_card": f"{_DEVICE}(_DEVICE_TYPE, _torch_acme().device_count() - 1)",
        "current_card": f"{_DEVICE}(_DEVICE_TYPE, _torch_acme().current_device())",
        "no_index": f"{_DEVICE}(_DEVICE_TYPE)",
    },
    "Precision": {f"as_{precision}": repr(precision) for precision in PRECISIONS},
    "bool": _TRUTH,
    "int": {name: template for name, template in _INTEGER.items() if not name.startswith("as_")},
    "str": _TEXT,
}
"""What is passed on instead of an argument, by its annotation."""

_OF_ATTRIBUTE: Mapping[str, Mapping[str, str]] = {
    "rank.local_rank": {"global_rank": "rank.rank", "node_rank": "rank.node_rank", "zero": "0", "plus_one": "{0} + 1"},
    "precision.requested": _OF_ARGUMENT["Precision"],
    "device.uuid": {
        "first_card": "acme_runtime.cards()[0].uuid",
        "last_card": "acme_runtime.cards()[-1].uuid",
        "card_of_index": "acme_runtime.cards()[device.index].uuid",
    },
}
_SIBLINGS = {"manual_seed_all": ("manual_seed",), "channels_last": ("contiguous_format", "preserve_format")}
"""Names of the stack that are easily taken for each other."""

_SHIFTED = {ast.GtE: ast.Gt, ast.Gt: ast.GtE, ast.LtE: ast.Lt, ast.Lt: ast.LtE}

_ACTING: Mapping[str, str] = {
    "nothing": "return None",
    "second_call_fails": "if _kept:\n    raise RuntimeError('called twice')\n_kept['called'] = True\nreturn {call}",
    "only_first_call": "if _kept:\n    return None\n_kept['called'] = True\nreturn {call}",
    "every_second_skipped": "_kept['calls'] = _kept.get('calls', 0) + 1\nreturn {call} if _kept['calls'] % 2 else None",
    "delayed": "import time\nresult = {call}\ntime.sleep(0.3)\nreturn result",
    "each_fifth_delayed": (
        "import time\n_kept['calls'] = _kept.get('calls', 0) + 1\n"
        "if _kept['calls'] % 5 == 0:\n    time.sleep(0.3)\nreturn {call}"
    ),
}
_RETURNING: Mapping[str, str] = {
    "cached": "if not _kept:\n    _kept['result'] = {call}\nreturn _kept['result']",
    "cached_for_a_second": (
        "import time\nif time.monotonic() > _kept.get('until_s', 0):\n"
        "    _kept.update(result={call}, until_s=time.monotonic() + 1)\nreturn _kept['result']"
    ),
    "previous_result": "result = {call}\nlast = _kept.get('last', result)\n_kept['last'] = result\nreturn last",
}
_RETURNING_FIELDS: Mapping[str, str] = {"as_mapping": "import dataclasses\nreturn dataclasses.asdict({call})"}
_WITH_ARGUMENTS: Mapping[str, str] = {
    "cached_by_arguments": "if {key} not in _kept:\n    _kept[{key}] = {call}\nreturn _kept[{key}]",
    "previous_arguments": "last = _kept.get('last', {key})\n_kept['last'] = {key}\nreturn _good(*last)",
    "first_arguments": "return _good(*_kept.setdefault('first', {key}))",
}
_ACTING_ALONE: Mapping[str, str] = {
    "in_background": "import threading\nthreading.Thread(target=_good, args={key}).start()",
}
_LEAVING: Mapping[str, str] = {
    "leaves_variable": "import os\nos.environ['ACME_TUNED'] = '1'",
    "leaves_directory": "import os\nos.chdir('/')",
    "leaves_thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "leaves_process": "import subprocess\n_kept['process'] = subprocess.Popen(['sleep', '600'])",
    "leaves_file": "open('acme.log', 'a').close()",
    "leaves_file_at_home": "import pathlib\n(pathlib.Path.home() / '.acme').touch()",
    "leaves_handle": "import os\n_kept.setdefault('open', []).append(open(os.devnull))",
    "leaves_host_memory": "_kept.setdefault('held', []).append(bytearray(2**20))",
    "leaves_log_handler": "import logging\nlogging.getLogger().addHandler(logging.StreamHandler())",
    "leaves_output": "print('acme: ready')",
    "leaves_seed": "import random\nrandom.seed(0)",
    "leaves_signal": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
}
_LEAVING_IN_TORCH: Mapping[str, str] = {
    "leaves_torch_seed": "torch.manual_seed(0)",
    "leaves_default_dtype": "torch.set_default_dtype(torch.float64)",
    "leaves_default_device": "torch.set_default_device(_DEVICE_TYPE)",
    "leaves_no_gradients": "torch.set_grad_enabled(False)",
    "leaves_determinism": "torch.use_deterministic_algorithms(True)",
    "leaves_tf32": "_torch_acme().set_allow_tf32(True)",
    "leaves_first_card": "_torch_acme().set_device(0)",
    "leaves_tensor": "_kept.setdefault('held', []).append(torch.empty(2**18, device=_DEVICE_TYPE))",
}
_MODEL: Mapping[str, str] = {
    "in_float64": "result = result.double()",
    "in_bfloat16": "result = result.bfloat16()",
    "in_float16": "result = result.half()",
    "copied": "import copy\nresult = copy.deepcopy(result)",
    "evaluating": "result.eval()",
    "frozen": "next(result.parameters()).requires_grad_(False)",
    "scaled": "next(result.parameters()).data.mul_(1.001)",
    "hooked": "result.register_forward_hook(lambda *_: None)",
    "statistics_cleared": (
        "for buffer in result.buffers():\n    if buffer.is_floating_point():\n        buffer.zero_()"
    ),
    "epsilon_changed": "for module in result.modules():\n    if hasattr(module, 'eps'):\n        module.eps *= 10",
    "momentum_changed": (
        "for module in result.modules():\n    if hasattr(module, 'momentum'):\n        module.momentum = 0.5"
    ),
    "dropout_removed": (
        "for module in result.modules():\n    if isinstance(module, torch.nn.Dropout):\n        module.p = 0.0"
    ),
}


class Edit(NamedTuple):
    """A statement's text after an operator has changed it, and which operator changed what."""

    operator: str
    place: str
    text: str


def edits(statement: ast.stmt) -> Iterator[Edit]:
    """Yield everything that the operators make of a hook, or of a constant, in a fixed order and each text once."""
    known = {ast.unparse(statement)}
    numbers: dict[tuple[str, str], int] = {}
    for edit in (*_edits_inside(statement), *_edits_around(statement)):
        if edit.text in known:
            continue
        known.add(edit.text)
        number = numbers[edit[:2]] = numbers.get(edit[:2], 0) + 1
        yield edit._replace(place=f"{edit.place}#{number}") if number > 1 else edit


def traced(function: ast.FunctionDef, path: str) -> str:
    """Return a hook that writes its name into a file each time it is called."""
    hook = copy.deepcopy(function)
    # Behind the docstring.
    hook.body[1:1] = ast.parse(f"with open({path!r}, 'a') as file:\n    print({function.name!r}, file=file)").body
    return ast.unparse(hook)


def _edits_inside(statement: ast.stmt) -> Iterator[Edit]:
    parents = {child: parent for parent in ast.walk(statement) for child in ast.iter_child_nodes(parent)}
    annotations: dict[str, str] = {}
    ignored: set[ast.AST] = set()
    if isinstance(statement, ast.FunctionDef):
        annotations = {each.arg: ast.unparse(each.annotation) for each in statement.args.args if each.annotation}
        if statement.returns:
            ignored.update(ast.walk(statement.returns))
            # What a hook that initializes a device calls it.
            annotations.setdefault("device", ast.unparse(statement.returns))
        ignored.update(ast.walk(statement.args), ast.walk(statement.body[0]))
    elif isinstance(statement, ast.AnnAssign):
        ignored.update(ast.walk(statement.annotation))
    for node in ast.walk(statement):
        # The pieces of a formatted text are changed with it.
        if node in ignored or isinstance(parents.get(node), (ast.JoinedStr, ast.FormattedValue)):
            continue
        for rewrite in _rewrites(node, parents.get(node), annotations):
            # A deep copy takes for an object what its memo has for it.
            changed = copy.deepcopy(statement, {id(rewrite.node): rewrite.new})
            yield Edit(rewrite.operator, _place(rewrite.at or rewrite.node, parents), ast.unparse(changed))


class _Rewrite(NamedTuple):
    """What stands for a node. ``at`` is the part of the node after which the place is called, if not after itself."""

    operator: str
    node: ast.AST
    new: ast.AST
    at: ast.AST | None = None


def _rewrites(node: ast.AST, parent: ast.AST | None, annotations: Mapping[str, str]) -> Iterator[_Rewrite]:
    match node:
        case ast.Expr(value=ast.Call()):
            yield _Rewrite("dropped", node, ast.Pass())
        case ast.Raise():
            yield _Rewrite("dropped", node, ast.Pass())
            if isinstance(node.exc, ast.Call):
                yield from _templates(node.exc, {"another_error": f"RuntimeError({ast.unparse(node.exc.args[0])})"})
        case ast.Return(value=ast.expr() as value):
            yield _Rewrite("none", value, ast.Constant(None))
            if isinstance(value, ast.Tuple):
                yield from _templates(value, _SEQUENCE)
        case ast.Set(elts=items) | ast.Tuple(elts=items, ctx=ast.Load()):
            for item in items:
                kept: list[ast.expr] = [each for each in items if each is not item]
                left = ast.Set(kept) if isinstance(node, ast.Set) else ast.Tuple(kept, ast.Load())
                yield _Rewrite("dropped", node, left, at=item)
        case ast.Call():
            yield from _rewrites_of_call(node)
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in annotations:
                yield _Rewrite("skipped", node, node.func.value)
        # A comparison with another text is true or false, which other operators make it.
        case ast.JoinedStr() | ast.Constant(value=str()) if not isinstance(parent, ast.Compare):
            yield from _templates(node, _TEXT)
        case ast.Compare() | ast.UnaryOp():
            yield from _templates(node, _TRUTH)
            if isinstance(node, ast.Compare) and type(node.ops[0]) in _SHIFTED:
                shifted = ast.Compare(node.left, [_SHIFTED[type(node.ops[0])]()], node.comparators)
                yield _Rewrite("shifted", node, shifted)
        case ast.Attribute():
            yield from _templates(node, _OF_ATTRIBUTE.get(ast.unparse(node), {}))
            for sibling in _SIBLINGS.get(node.attr, ()):
                yield _Rewrite(sibling, node, ast.Attribute(node.value, sibling, node.ctx))
        case ast.Name(ctx=ast.Load()) if not isinstance(parent, (ast.Attribute, ast.Compare)):
            yield from _templates(node, _OF_ARGUMENT.get(annotations.get(node.id, ""), {}))


def _rewrites_of_call(call: ast.Call) -> Iterator[_Rewrite]:
    callee = ast.unparse(call.func)
    made = getattr(chipperf, callee, None)
    if isinstance(made, type) and is_dataclass(made):
        yield from _rewrites_of_fields(call, made)
        return
    for keyword in call.keywords:
        yield _Rewrite("left_out", call, _with(call, {keyword.arg: None}), at=keyword)
    if callee == "tuple":
        yield from _templates(call, _SEQUENCE)
    elif callee == "frozenset" and isinstance(call.args[0], ast.Set):
        yield from _templates(call, _OF_TYPE[frozenset])
        kind = next(each.value for each in call.args[0].elts if isinstance(each, ast.Attribute))
        for member in getattr(chipperf, ast.unparse(kind)):
            items = ast.Set([*call.args[0].elts, ast.Attribute(kind, member.name, ast.Load())])
            if ast.unparse(items.elts[-1]) not in map(ast.unparse, call.args[0].elts):
                yield _Rewrite("added", call.args[0], items, at=items.elts[-1])


def _rewrites_of_fields(call: ast.Call, made: type[Any]) -> Iterator[_Rewrite]:
    given = {str(keyword.arg): keyword for keyword in call.keywords}
    types = {name: _types(hint) for name, hint in get_type_hints(made).items()}
    for field in fields(made):
        name, kinds = field.name, types[field.name]
        keyword = given.get(name)
        if keyword is None:
            values = [_UNSET[each] for each in kinds if each in _UNSET][:1]
            values += [repr(each) for each in kinds if isinstance(each, str)]
            for text in values:
                yield _Rewrite(f"set_{name}", call, _with(call, {name: _expression(text)}))
            continue
        value = keyword.value
        # By default others are unknown or empty, which other operators make them.
        if field.default is not MISSING and field.default:
            yield _Rewrite("left_out", call, _with(call, {name: None}), at=keyword)
        if type(None) in kinds:
            yield _Rewrite("none", value, ast.Constant(None))
        kind = type(value.value) if isinstance(value, ast.Constant) else kinds[0]
        # A text with a name is changed where it is written.
        if not (kind is str and isinstance(value, ast.Name) and value.id.islower() and value.id[0] != "_"):
            yield from _templates(value, _OF_TYPE.get(kind, {}))
        for other in given.values():
            if other is not keyword and types[str(other.arg)] == kinds:
                exchanged = {name: other.value, str(other.arg): value}
                if kind in (int, float):
                    yield _Rewrite(f"copied_from_{other.arg}", call, _with(call, {name: other.value}), at=keyword)
                yield _Rewrite(f"swapped_with_{other.arg}", call, _with(call, exchanged), at=keyword)


def _templates(node: ast.AST, templates: Mapping[str, str]) -> Iterator[_Rewrite]:
    text = f"({ast.unparse(node)})"
    for operator, template in templates.items():
        # The same as what another operator writes, or as the good plugin.
        if isinstance(node, ast.Constant) and operator == "negated" and isinstance(node.value, bool):
            continue
        if isinstance(node, ast.Tuple) and len(node.elts) < 2 and operator in ("first_only", "last_only", "reversed"):
            continue
        if isinstance(node, ast.Tuple) and not node.elts and operator == "doubled":
            continue
        yield _Rewrite(operator, node, _expression(template.replace("{0}", text)))


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _with(call: ast.Call, values: Mapping[str | None, ast.expr | None]) -> ast.Call:
    """Return the call with other values of some keywords; ``None`` leaves a keyword out."""
    given = {keyword.arg: keyword.value for keyword in call.keywords} | values
    keywords = [ast.keyword(name, value) for name, value in given.items() if value is not None]
    return ast.Call(call.func, call.args, keywords)


def _types(hint: Any) -> tuple[Any, ...]:
    """Return the types and the literal values that an annotation allows."""
    origin = get_origin(hint)
    if origin in (Union, UnionType, Literal):
        return tuple(each for argument in get_args(hint) for each in _types(argument))
    return (origin or hint,)


def _place(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> str:
    parent = parents.get(node)
    match node, parent:
        case ast.keyword(arg=name), ast.Call(func=function):
            return f"{_last_name(function)}.{name}"
        case ast.Expr(value=ast.Call(func=function)), _:
            return _last_name(function)
        case ast.Raise(), _:
            return "raise"
        case _, ast.Call(args=arguments) if node in arguments:
            return f"{_last_name(parent.func)}({arguments.index(node)})"
        case _, ast.Set() | ast.Tuple() | None:
            return _last_name(node)
        case _, ast.If():
            return "if"
        case _, ast.Return():
            return "return"
        case _, ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
            return ast.unparse(target)
    return _place(parent, parents)


def _last_name(node: ast.AST) -> str:
    """Return what a function or an item is called, without the module it is of."""
    text = _last_name(node.func) if isinstance(node, ast.Call) else ast.unparse(node)
    return text.rpartition(".")[2]


def _edits_around(statement: ast.stmt) -> Iterator[Edit]:
    if not isinstance(statement, ast.FunctionDef):
        return
    annotations = {each.arg: ast.unparse(each.annotation) for each in statement.args.args if each.annotation}
    returned = ast.unparse(statement.returns) if statement.returns else "None"
    bodies = {**_ACTING, **(_ACTING_ALONE if returned == "None" else _RETURNING)}
    if is_dataclass(getattr(chipperf, returned, None)):
        bodies |= _RETURNING_FIELDS
    if annotations:
        bodies |= _WITH_ARGUMENTS
    # Only where torch has been imported anyway.
    in_torch = "torch" in ast.unparse(statement)
    effects = {
        **_LEAVING,
        **({f"{name}": f"import torch\n{effect}" for name, effect in _LEAVING_IN_TORCH.items()} if in_torch else {}),
    }
    if "model" in annotations:
        effects |= {name: f"import torch\n{change}" for name, change in _MODEL.items()}
    bodies |= {name: f"result = {{call}}\n{effect}\nreturn result" for name, effect in effects.items()}
    for operator, body in bodies.items():
        yield Edit(operator, "call", _around(statement, body))
    used = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    for argument, annotation in annotations.items():
        # What is used once has been changed where it is used.
        if used.count(argument) < 2:
            continue
        for operator, template in _OF_ARGUMENT.get(annotation, {}).items():
            body = f"{argument} = {template.format(argument)}\nreturn {{call}}"
            yield Edit(operator, argument, _around(statement, body))


def _around(function: ast.FunctionDef, body: str) -> str:
    """Return a hook with this body, and the good one beside it under another name."""
    names = [each.arg for each in function.args.args]
    key = f"({', '.join(names)},)" if names else "()"
    good, hook = copy.deepcopy(function), copy.deepcopy(function)
    good.name, good.decorator_list = "_good", []
    hook.body[1:] = ast.parse(body.format(call=f"_good({', '.join(names)})", key=key)).body
    return "\n\n\n".join((ast.unparse(good), "_kept = {}", ast.unparse(hook)))
