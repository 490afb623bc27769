"""What became of a model in a vendor's hands, which may change its layouts and nothing else.

A rounded weight, a hook that rounds gradients or another class of layer changes the results, and no product shows it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import torch
from torch.nn.modules import module as modules
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOOKS: Final = (
    *("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks"),
    *("state_dict_pre_hooks", "state_dict_hooks", "load_state_dict_pre_hooks", "load_state_dict_post_hooks"),
)
_HOOKS_OF_TENSORS: Final = ("_backward_hooks", "_post_accumulate_grad_hooks")


def describe_model(
    model: torch.nn.Module, parameter_type: str | None = None, *, values: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return phrases for every module, parameter, buffer and hook of a model, by what they are about.

    A parameter, but of batch normalization, that a precision converts to ``parameter_type`` has a second phrase, for
    what it may become. Values are told by a digest, and left out without ``values``, as are a module's settings, such
    as the momentum of a normalization, the probability of a dropout, and whether it trains.
    """
    found: dict[str, tuple[str, ...]] = {"hooks of all modules": (str(_count(modules, "_global_", _HOOKS)),)}
    for name, module in model.named_modules():
        # A function in an instance hides a method of its class.
        kind, hooks = type(module), _count(module, "_", _HOOKS) + sum(map(callable, vars(module).values()))
        more = f" with {hooks} hooks" if hooks else ""
        found[f"module {name or '(root)'}"] = (f"{kind.__module__}.{kind.__qualname__}{more}",)
        if values:
            found[f"settings of module {name or '(root)'}"] = (_settings(module),)
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = (_phrase(buffer, values),)
    normalizing = {p for module in model.modules() if isinstance(module, _BatchNorm) for p in module.parameters()}
    names: dict[torch.nn.Parameter, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared = "" if names.setdefault(parameter, name) == name else f", the same as {names[parameter]}"
        converted = parameter_type is not None and parameter not in normalizing
        kinds = [parameter, parameter.to(getattr(torch, str(parameter_type)))] if converted else [parameter]
        hooks = _count(parameter, "", _HOOKS_OF_TENSORS)
        more = shared + ("" if parameter.requires_grad else ", frozen") + (f", with {hooks} hooks" if hooks else "")
        found[f"parameter {name}"] = tuple(_phrase(each, values) + more for each in kinds)
    return found


def changes_of_model(before: Mapping[str, tuple[str, ...]], after: Mapping[str, tuple[str, ...]]) -> str:
    """Return what has changed between two descriptions of a model, at most five things; empty if nothing has."""
    absent = ("absent",)
    changes = [
        f"{name} was {before.get(name, absent)[0]} and is {after.get(name, absent)[0]}"
        for name in {**before, **after}
        if after.get(name, absent)[0] not in before.get(name, absent)
    ]
    more = f", and {len(changes) - 5} more" if len(changes) > 5 else ""
    return "; ".join(changes[:5]) + more


def digest(*tensors: torch.Tensor) -> str:
    """Return a digest of the bits of tensors, whatever their layouts."""
    found = hashlib.sha256()
    for tensor in tensors:
        # NumPy has no bfloat16.
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _settings(module: torch.nn.Module) -> str:
    plain = {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and (value is None or isinstance(value, (bool, int, float, str, tuple)))
    }
    return ", ".join(f"{name}={value}" for name, value in plain.items())


def _phrase(tensor: torch.Tensor, values: bool) -> str:
    kind = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device.type}"
    return f"{kind} of bits {digest(tensor)[:8]}" if values else kind


def _count(owner: object, prefix: str, names: tuple[str, ...]) -> int:
    return sum(len(getattr(owner, prefix + name, None) or ()) for name in names)
