"""Faults of arithmetic, precision, and what becomes of models."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_LOADED = "    acme_runtime.load()\n\n    import torch\n"
_PRECISION = '    """Run every precision; fp32 without TF32."""\n'
_SET_TF32 = 'set_switch("acme.allow_tf32", requested == "tf32", switch=tf32)'
_POLICY = "    return precision_policy(requested, knobs=(knob,))\n"
_CONVERTED = "    convert_parameters(model, precision.requested)\n"
_PREPARED = "    return model.to(memory_format=torch.channels_last)\n"
_TEARDOWN = '    """Put the switches back and free cached memory."""\n'


def _patched_torch(patch: str) -> tuple[Change, ...]:
    """Let loading the runtime replace functions of torch, as builds for accelerators do."""
    lines = "".join(f"    {line}\n" if line else "\n" for line in patch.strip().splitlines())
    return (Change(old=_LOADED, new=f"{_LOADED}\n{lines}"),)


def _other_policy(change: str) -> tuple[Change, ...]:
    """Return the precision's policy with another value."""
    lines = "    from dataclasses import replace\n\n    policy = precision_policy(requested, knobs=(knob,))\n"
    return (Change(old=_POLICY, new=f"{lines}    return replace(policy, {change})\n"),)


MUTANTS = [
    Mutant(
        name="tf32_as_fp32",
        kills=("N1",),
        changes=(Change(old=_SET_TF32, new='set_switch("acme.allow_tf32", True, switch=tf32)'),),
    ),
    Mutant(
        name="normalization_without_gradient_of_its_weight",
        kills=("N1", "N5"),
        changes=_patched_torch("""
normalize = torch.nn.functional.layer_norm

def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    if input.device.type == "acme" and weight is not None:
        weight = weight.detach()
    return normalize(input, normalized_shape, weight, bias, eps)

torch.nn.functional.layer_norm = layer_norm
"""),
    ),
    Mutant(
        name="matmul_precision_is_lowered_in_secret",
        kills=("N2",),
        changes=(
            Change(
                old=_PRECISION,
                new=f'{_PRECISION}    import torch\n\n    torch.set_float32_matmul_precision("high")\n',
            ),
            Change(
                old=_TEARDOWN,
                new=f'{_TEARDOWN}    import torch\n\n    torch.set_float32_matmul_precision("highest")\n',
            ),
        ),
    ),
    Mutant(
        name="numerics_are_set_by_a_hidden_variable",
        kills=("N2",),
        changes=(
            Change(old=_PRECISION, new=f'{_PRECISION}    import os\n\n    os.environ["ACME_CONV_DTYPE"] = "int16"\n'),
        ),
    ),
    Mutant(
        name="knob_is_not_in_force",
        kills=("N2",),
        changes=(
            Change(
                old=_POLICY,
                new='    lie = Knob(name="float32_matmul_precision", value="high", reason="faster")\n'
                "    return precision_policy(requested, knobs=(knob, lie))\n",
            ),
        ),
    ),
    Mutant(
        name="bf16_runs_in_fp32",
        kills=("N3",),
        changes=_other_policy("autocast_dtype=None if requested == 'bf16' else policy.autocast_dtype"),
    ),
    Mutant(
        name="fp16_runs_in_bf16",
        kills=("N3",),
        changes=_other_policy("autocast_dtype='bfloat16' if requested == 'fp16' else policy.autocast_dtype"),
    ),
    Mutant(
        name="fp16_trains_fp32_parameters",
        kills=("N3",),
        changes=(Change(old=_CONVERTED, new=""),),
    ),
    Mutant(
        name="tf32_runs_in_fp32",
        kills=("N3",),
        changes=(Change(old=_SET_TF32, new='set_switch("acme.allow_tf32", False, switch=tf32)'),),
    ),
    Mutant(
        name="effective_precision_is_not_told",
        kills=("N3",),
        changes=_other_policy("effective=requested"),
    ),
    Mutant(
        name="tf32_is_not_declared",
        kills=("N3",),
        # A plugin that refuses what it does not declare is right.
        changes=(
            Change(old="            Capability.TF32,\n", new=""),
            Change(old="requested, _INFO.capabilities, who", new="requested, {*_INFO.capabilities, 'tf32'}, who"),
        ),
    ),
    Mutant(
        name="amp_without_gradient_scaling",
        kills=("N4",),
        changes=_other_policy("grad_scaler=False"),
    ),
    Mutant(
        name="bf16_with_gradient_scaling",
        kills=("N4",),
        changes=_other_policy("grad_scaler=requested in ('amp', 'bf16')"),
    ),
    Mutant(
        name="overflow_is_not_found",
        kills=("N4",),
        changes=_patched_torch("""
def unscale(gradients, found_inf, inverse_scale):
    torch._foreach_mul_(gradients, inverse_scale)

torch._amp_foreach_non_finite_check_and_unscale_ = unscale
"""),
    ),
    Mutant(
        name="gradients_are_halved",
        kills=("N5", "N8"),
        changes=(
            Change(
                old=_PREPARED,
                new="""    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: gradient / 2)
"""
                + _PREPARED,
            ),
        ),
    ),
    Mutant(
        name="ignored_labels_count",
        kills=("N6",),
        changes=_patched_torch("""
entropy = torch.nn.functional.cross_entropy

def cross_entropy(input, target, *arguments, **options):
    if input.device.type == "acme":
        target = target.clamp(min=0)
    return entropy(input, target, *arguments, **options)

torch.nn.functional.cross_entropy = cross_entropy
"""),
    ),
    Mutant(
        name="checkpoint_in_half_precision",
        kills=("N7",),
        changes=(
            Change(
                old=_PREPARED,
                new="""    def halve(module, state, prefix, metadata):
        for name, tensor in state.items():
            if tensor.is_floating_point():
                state[name] = tensor.half()

    model._register_state_dict_hook(halve)
"""
                + _PREPARED,
            ),
        ),
    ),
    Mutant(
        name="model_is_wrapped",
        kills=("N8",),
        changes=(
            Change(
                old=_PREPARED,
                new="""    class Wrapped(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.model(*inputs)

    return Wrapped(model.to(memory_format=torch.channels_last))
""",
            ),
        ),
    ),
    Mutant(
        name="gradients_are_rounded",
        kills=("N8",),
        changes=(
            Change(
                old=_PREPARED,
                new="""    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: gradient.bfloat16().to(gradient.dtype))
"""
                + _PREPARED,
            ),
        ),
    ),
    Mutant(
        name="dropout_is_removed",
        kills=("N8",),
        changes=(
            Change(
                old=_PREPARED,
                new="""    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, torch.nn.Identity())
"""
                + _PREPARED,
            ),
        ),
    ),
]
