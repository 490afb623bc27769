"""Tools for plugins that use torch; importing this module does not import torch.

Plugins may import this module, :mod:`chipperf` and :mod:`chipperf.hardware`.
"""

from chipperf.plugin.torch_helpers import CUDNN_BENCHMARK as CUDNN_BENCHMARK
from chipperf.plugin.torch_helpers import CUDNN_DETERMINISTIC as CUDNN_DETERMINISTIC
from chipperf.plugin.torch_helpers import CUDNN_TF32 as CUDNN_TF32
from chipperf.plugin.torch_helpers import DETERMINISTIC_ALGORITHMS as DETERMINISTIC_ALGORITHMS
from chipperf.plugin.torch_helpers import KERNEL_SWITCHES as KERNEL_SWITCHES
from chipperf.plugin.torch_helpers import MATMUL_PRECISION as MATMUL_PRECISION
from chipperf.plugin.torch_helpers import MATMUL_TF32 as MATMUL_TF32
from chipperf.plugin.torch_helpers import Switch as Switch
from chipperf.plugin.torch_helpers import call_if_there as call_if_there
from chipperf.plugin.torch_helpers import convert_parameters as convert_parameters
from chipperf.plugin.torch_helpers import gradient_scaler as gradient_scaler
from chipperf.plugin.torch_helpers import nccl_version as nccl_version
from chipperf.plugin.torch_helpers import perf_device_info as perf_device_info
from chipperf.plugin.torch_helpers import perf_device_teardown as perf_device_teardown
from chipperf.plugin.torch_helpers import perf_loader_options as perf_loader_options
from chipperf.plugin.torch_helpers import perf_memory_query as perf_memory_query
from chipperf.plugin.torch_helpers import perf_memory_reset_peak as perf_memory_reset_peak
from chipperf.plugin.torch_helpers import perf_synchronize as perf_synchronize
from chipperf.plugin.torch_helpers import precision_policy as precision_policy
from chipperf.plugin.torch_helpers import read_memory as read_memory
from chipperf.plugin.torch_helpers import read_switch as read_switch
from chipperf.plugin.torch_helpers import require_precision as require_precision
from chipperf.plugin.torch_helpers import restore_switches as restore_switches
from chipperf.plugin.torch_helpers import set_determinism as set_determinism
from chipperf.plugin.torch_helpers import set_switch as set_switch
from chipperf.plugin.torch_helpers import set_tf32 as set_tf32
from chipperf.plugin.torch_helpers import switch_knobs as switch_knobs
from chipperf.plugin.torch_helpers import use_device as use_device
from chipperf.plugin.torch_helpers import user_variables as user_variables
