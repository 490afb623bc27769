"""Tools for plugins that use torch; importing this imports no torch.

A plugin may import this module beside :mod:`chipperf` and :mod:`chipperf.hardware`.
"""

from chipperf.plugin.torch_helpers import (
    CUDNN_BENCHMARK,
    CUDNN_DETERMINISTIC,
    CUDNN_TF32,
    DETERMINISTIC_ALGORITHMS,
    KERNEL_SWITCHES,
    MATMUL_PRECISION,
    MATMUL_TF32,
    Switch,
    convert_parameters,
    precision_policy,
    read_memory,
    read_switch,
    require_precision,
    restore_switches,
    set_determinism,
    set_switch,
    set_tf32,
    switch_knobs,
    use_device,
    user_variables,
)

__all__ = [
    "CUDNN_BENCHMARK",
    "CUDNN_DETERMINISTIC",
    "CUDNN_TF32",
    "DETERMINISTIC_ALGORITHMS",
    "KERNEL_SWITCHES",
    "MATMUL_PRECISION",
    "MATMUL_TF32",
    "Switch",
    "convert_parameters",
    "precision_policy",
    "read_memory",
    "read_switch",
    "require_precision",
    "restore_switches",
    "set_determinism",
    "set_switch",
    "set_tf32",
    "switch_knobs",
    "use_device",
    "user_variables",
]
