"""Faults of arithmetic, precision, and what becomes of models."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_LOADED = "    acme_runtime.load()\n\n    import torch\n"
_PRECISION = '    """Run every precision; fp32 without TF32."""\n'
_SET_TF32 = 'set_switch("acme.allow_tf32", requested == "tf32", switch=tf32)'
_POLICY = "    return precision_policy(requested, knobs=(knob,))\n"
_CONVERTED = "    convert_parameters(model, precision.requested)\n"
_SEED = "    _torch_acme().manual_seed_all(seed)\n"
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


def _other_step(change: str) -> tuple[Change, ...]:
    """Let the optimizers change a parameter group of the card before each step."""
    return _patched_torch(f"""
for kind in (torch.optim.SGD, torch.optim.AdamW):
    def step(optimizer, closure=None, step=kind.step):
        for group in optimizer.param_groups:
            if group["params"][0].device.type == "acme":
                {change}
        return step(optimizer, closure)

    kind.step = step
""")


def _other_normalization(output: str, then: str = "None") -> tuple[Change, ...]:
    """Let batch normalization on the card return something else, and do something after that."""
    return _patched_torch(f"""
normalize = torch.nn.functional.batch_norm

def batch_norm(input, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    arguments = (input, mean, variance, weight, bias, training, momentum, eps)
    if input.device.type != "acme" or mean is None:
        return normalize(*arguments)
    output = {output}
    {then}
    return output

torch.nn.functional.batch_norm = batch_norm
""")


def _other_layers(kind: str, change: str) -> tuple[Change, ...]:
    """Let the preparation of a model change its layers of a kind."""
    lines = f"    for layer in model.modules():\n        if isinstance(layer, {kind}):\n            {change}\n"
    return (Change(old=_PREPARED, new=lines + _PREPARED),)


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
        name="ignored_pixels_count",
        kills=("N6",),
        changes=_patched_torch("""
entropy = torch.nn.functional.cross_entropy

def cross_entropy(input, target, weight=None, *arguments, ignore_index=-100, reduction="mean", **options):
    if input.device.type == "acme" and input.dim() == 4 and reduction == "mean":
        return entropy(input, target, weight, *arguments, ignore_index=ignore_index, reduction="none").mean()
    return entropy(input, target, weight, *arguments, ignore_index=ignore_index, reduction=reduction, **options)

torch.nn.functional.cross_entropy = cross_entropy
"""),
    ),
    Mutant(
        name="large_images_are_resized_to_the_nearest_pixels",
        kills=("N6",),
        changes=_patched_torch("""
resize = torch.nn.functional.interpolate

def interpolate(input, size=None, scale_factor=None, mode="nearest", *arguments, **options):
    if input.device.type == "acme" and size is not None and size[-1] > 512:
        return resize(input, size, mode="nearest")
    return resize(input, size, scale_factor, mode, *arguments, **options)

torch.nn.functional.interpolate = interpolate
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
    Mutant(
        name="tf32_stays_for_fp32",
        kills=("N2", "N3"),
        changes=(
            Change(
                old=_SET_TF32,
                new='requested == "tf32" and set_switch("acme.allow_tf32", True, switch=tf32)',
            ),
        ),
    ),
    Mutant(
        name="knob_has_the_value_of_before",
        kills=("N2",),
        changes=(
            Change(old=_PRECISION, new=f"{_PRECISION}    before = _torch_acme().get_allow_tf32()\n"),
            Change(old="value=str(_torch_acme().get_allow_tf32())", new="value=str(before)"),
        ),
    ),
    Mutant(
        name="knob_has_the_value_that_the_user_replaced",
        kills=("N2",),
        changes=(
            Change(
                old=_POLICY,
                new='    threads = Knob(name="OMP_NUM_THREADS", value="1", reason="one core for each card")\n'
                "    return precision_policy(requested, knobs=(knob, threads))\n",
            ),
        ),
    ),
    Mutant(
        name="initialization_sets_a_hidden_variable",
        kills=("N2",),
        changes=(
            Change(
                old="    _torch_acme().set_device(device)\n",
                new='    import os\n\n    _torch_acme().set_device(device)\n    os.environ["ACME_FAST_MATH"] = "1"\n',
            ),
        ),
    ),
    Mutant(
        name="kernels_of_attention_are_chosen_in_secret",
        kills=("N2",),
        changes=(Change(old=_PREPARED, new=f"    torch.backends.mha.set_fastpath_enabled(False)\n{_PREPARED}"),),
    ),
    Mutant(
        name="long_sums_are_in_bf16",
        kills=("N1",),
        changes=_patched_torch("""
add = torch.Tensor.sum

def add_in_bf16(self, *arguments, **options):
    if self.device.type == "acme" and self.dtype == torch.float32 and self.numel() > 2**18:
        return add(self.bfloat16(), *arguments, **options).float()
    return add(self, *arguments, **options)

torch.Tensor.sum = add_in_bf16
"""),
    ),
    Mutant(
        name="gradients_of_repeated_rows_are_lost",
        kills=("N1", "N6"),
        changes=_patched_torch("""
class LookUp(torch.autograd.Function):
    @staticmethod
    def forward(context, weight, index):
        context.save_for_backward(index)
        context.shape = weight.shape
        return weight.index_select(0, index)

    @staticmethod
    def backward(context, gradient):
        (index,) = context.saved_tensors
        found = gradient.new_zeros(context.shape)
        found[index] = gradient
        return found, None

embedding = torch.nn.functional.embedding

def embed(input, weight, *arguments, **options):
    if weight.device.type == "acme":
        return LookUp.apply(weight, input)
    return embedding(input, weight, *arguments, **options)

torch.nn.functional.embedding = embed
"""),
    ),
    Mutant(
        name="dropout_repeats_its_mask",
        kills=("N1",),
        changes=_patched_torch("""
drop = torch.nn.functional.dropout

def dropout(input, p=0.5, training=True, inplace=False):
    if input.device.type == "acme" and training and p:
        torch.acme.manual_seed_all(5)
    return drop(input, p, training, inplace)

torch.nn.functional.dropout = dropout
"""),
    ),
    Mutant(
        name="dropout_has_one_mask_for_all_samples",
        kills=("N1",),
        changes=_patched_torch("""
drop = torch.nn.functional.dropout

def dropout(input, p=0.5, training=True, inplace=False):
    if input.device.type == "acme" and training and input.dim() > 1:
        return input * drop(torch.ones_like(input[:1]), p)
    return drop(input, p, training, inplace)

torch.nn.functional.dropout = dropout
"""),
    ),
    Mutant(
        name="gradients_of_embeddings_have_rows_of_15_bits",
        kills=("N6",),
        changes=_patched_torch("""
embed = torch.nn.functional.embedding

def embedding(input, weight, *arguments, **options):
    rows = embed(input, weight, *arguments, **options)
    if weight.device.type != "acme" or len(weight) <= 2**15:
        return rows
    others = embed(input % 2**15, weight, *arguments, **options)
    return others + (rows - others).detach()

torch.nn.functional.embedding = embedding
"""),
    ),
    Mutant(
        name="an_operator_is_missing",
        kills=("N1",),
        changes=_patched_torch("""
convolve = torch.nn.functional.conv2d

def conv2d(input, *arguments, **options):
    if input.device.type == "acme":
        raise NotImplementedError("Could not run 'aten::convolution_overrideable' with arguments from the backend")
    return convolve(input, *arguments, **options)

torch.nn.functional.conv2d = torch.conv2d = conv2d
"""),
    ),
    Mutant(
        name="loss_is_rounded_under_autocast",
        kills=("N3",),
        changes=_patched_torch("""
entropy = torch.nn.functional.cross_entropy

def cross_entropy(input, *arguments, **options):
    if input.device.type == "acme" and input.dtype != torch.float32:
        with torch.autocast("acme", enabled=False):
            return entropy(input, *arguments, **options).float()
    return entropy(input, *arguments, **options)

torch.nn.functional.cross_entropy = cross_entropy
"""),
    ),
    Mutant(
        name="products_are_stored_in_fp32_under_autocast",
        kills=("N3",),
        changes=_patched_torch("""
linear = torch.nn.functional.linear

def widened(input, weight, bias=None):
    output = linear(input, weight, bias)
    return output.float() if input.device.type == "acme" and torch.is_autocast_enabled("acme") else output

torch.nn.functional.linear = widened
"""),
    ),
    Mutant(
        name="weights_of_the_first_step_are_kept_in_16_bits",
        kills=("N3",),
        changes=_patched_torch("""
linear = torch.nn.functional.linear
kept = {}

def linear_of_kept(input, weight, bias=None):
    if input.device.type == "acme" and torch.is_autocast_enabled("acme") and weight.requires_grad:
        halves = kept.setdefault((weight.data_ptr(), weight.shape), weight.detach().to(torch.float16))
        weight = weight + (halves.to(weight.dtype) - weight).detach()
    return linear(input, weight, bias)

torch.nn.functional.linear = linear_of_kept
"""),
    ),
    Mutant(
        name="overflow_is_looked_for_in_the_first_gradient",
        kills=("N4",),
        changes=_patched_torch("""
unscale_all = torch._amp_foreach_non_finite_check_and_unscale_

def unscale(gradients, found_inf, inverse_scale):
    unscale_all(gradients[:1], found_inf, inverse_scale)
    torch._foreach_mul_(gradients[1:], inverse_scale)

torch._amp_foreach_non_finite_check_and_unscale_ = unscale
"""),
    ),
    Mutant(
        name="weight_decay_is_dropped",
        kills=("N5",),
        changes=_other_step("group['weight_decay'] = 0.0"),
    ),
    Mutant(
        name="learning_rate_of_the_first_step_is_kept",
        kills=("N5",),
        changes=_other_step("group['lr'] = group.setdefault('first', group['lr'])"),
    ),
    Mutant(
        name="weights_lose_bits_in_bf16",
        kills=("N5",),
        changes=(
            Change(
                old=_PREPARED,
                new="""    if precision.requested == "bf16":
        step = torch.optim.SGD.step

        def rounded(optimizer: torch.optim.Optimizer, closure: Any = None) -> None:
            step(optimizer, closure)
            for parameter in optimizer.param_groups[0]["params"]:
                if parameter.device.type == _DEVICE_TYPE:
                    parameter.data.copy_(parameter.data.bfloat16())

        torch.optim.SGD.step = rounded
"""
                + _PREPARED,
            ),
        ),
    ),
    Mutant(
        name="running_variance_is_biased",
        kills=("N1", "N5"),
        changes=_other_normalization("normalize(*arguments)", "arguments[2].data.mul_(0.99) if arguments[5] else None"),
    ),
    Mutant(
        name="evaluation_normalizes_by_the_batch",
        kills=("N1", "N5"),
        changes=_other_normalization("normalize(*arguments[:5], True, *arguments[6:])"),
    ),
    Mutant(
        name="batches_are_not_counted",
        kills=("N5",),
        changes=_patched_torch("""
forward = torch.nn.BatchNorm2d.forward

def uncounted(layer, input):
    output = forward(layer, input)
    if input.device.type == "acme":
        layer.num_batches_tracked.zero_()
    return output

torch.nn.BatchNorm2d.forward = uncounted
"""),
    ),
    Mutant(
        name="momentum_of_normalization_is_changed",
        kills=("N8",),
        changes=_other_layers("torch.nn.BatchNorm2d", "layer.momentum = 0.01"),
    ),
    Mutant(
        name="dropout_is_in_evaluation",
        kills=("N8",),
        changes=_other_layers("torch.nn.Dropout", "layer.eval()"),
    ),
    Mutant(
        name="norm_of_groups_has_another_epsilon",
        kills=("N1", "N6"),
        changes=_patched_torch("""
normalize = torch.nn.functional.group_norm

def group_norm(input, groups, weight=None, bias=None, eps=1e-5):
    return normalize(input, groups, weight, bias, 1e-7 if input.device.type == "acme" else eps)

torch.nn.functional.group_norm = group_norm
"""),
    ),
    Mutant(
        name="gradients_are_clipped_by_the_largest",
        kills=("N5",),
        changes=_patched_torch("""
clip = torch.nn.utils.clip_grad_norm_

def clip_grad_norm_(parameters, max_norm, *arguments, **options):
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients[0].device.type != "acme":
        return clip(parameters, max_norm, *arguments, **options)
    norm = max(gradient.norm() for gradient in gradients)
    for gradient in gradients:
        gradient.mul_((max_norm / norm).clamp(max=1.0))
    return norm

torch.nn.utils.clip_grad_norm_ = clip_grad_norm_
"""),
    ),
    Mutant(
        name="frozen_parameters_are_trained",
        kills=("N8",),
        changes=(Change(old=_PREPARED, new=f"    model.requires_grad_(True)\n{_PREPARED}"),),
    ),
    Mutant(
        name="frozen_statistics_are_trained",
        kills=("N8",),
        changes=(Change(old=_PREPARED, new=f"    model.train()\n{_PREPARED}"),),
    ),
    Mutant(
        name="seed_switches_tf32_on",
        kills=("N3",),
        changes=(Change(old=_SEED, new=f"{_SEED}    _torch_acme().set_allow_tf32(True)\n"),),
    ),
    Mutant(
        name="residual_networks_have_another_momentum",
        kills=("N8",),
        changes=(
            Change(
                old=_PREPARED,
                new="    for layer in model.modules() if type(model).__name__ == 'ResNet' else ():\n"
                "        if hasattr(layer, 'momentum'):\n            layer.momentum = 0.2\n"
                f"{_PREPARED}",
            ),
        ),
    ),
    Mutant(
        name="padding_row_is_trained",
        kills=("N6",),
        changes=_patched_torch("""
embed = torch.nn.functional.embedding

def embedding(input, weight, padding_idx=None, *options, **others):
    return embed(input, weight, None if weight.device.type == "acme" else padding_idx, *options, **others)

torch.nn.functional.embedding = embedding
"""),
    ),
]
