"""Why some generated mutants are no worse than the good plugin: patterns of their names, each with its reason."""

_CONSTANT = "the result is the same in every process and for all arguments"
_NOTHING = "the good hook does nothing"
_TEXT = "free text, which any vendor words for itself"
_SEED = "every seed still has numbers of its own"
_PREFERENCE = "a vendor may choose this value"
_LOG = "what a rank prints goes into its log"
_CACHES = "a runtime may keep files in the user's home"
_SENSOR = "no sensor is that accurate"
_FEW_CALLS = "a run calls it a few times, before it trains"
_ONE_DEVICE = "a process has one device"
_NO_WITNESS = "only the vendor's data sheet or the sensor itself tells it"
_NO_CARD = "where the plugin finds no card, no level above 0 can be claimed"
_OF_RANKS = (
    *("perf_load_runtime", "perf_device_init", "perf_device_info", "perf_device_teardown", "perf_synchronize"),
    *("perf_memory_query", "perf_memory_reset_peak", "perf_distributed_setup", "perf_seed", "perf_precision"),
    *("perf_prepare_model", "perf_step_end", "perf_loader_options"),
)
"""Hooks that only the processes of a run call, after the vendor's software is loaded."""

EQUIVALENT: dict[str, str] = {
    # Hooks whose result does not depend on the call.
    **{
        f"{hook}:{operator}:call": _CONSTANT
        for hook in ("perf_vendor_info", "perf_loader_options", "perf_tool_commands")
        for operator in ("cached", "cached_for_a_second", "previous_result")
    },
    **{
        f"{hook}:{operator}:call": _CONSTANT
        for hook in ("perf_distributed_setup", "perf_case_overrides")
        for operator in ("cached*", "previous_*", "first_arguments")
    },
    "perf_loader_options:*_arguments:call": _CONSTANT,
    **{
        f"perf_load_runtime:{operator}:call": _CONSTANT
        for operator in ("cached", "cached_for_a_second", "previous_result")
    },
    "perf_peak_flops:cached_by_arguments:call": _CONSTANT,
    "perf_loader_options:only_first_call:call": "a process asks once",
    # Hooks that do nothing.
    **{
        f"perf_step_end:{operator}:call": _NOTHING
        for operator in (
            *("nothing", "only_first_call", "every_second_skipped", "in_background", "cached_by_arguments"),
            *("previous_arguments", "first_arguments"),
        )
    },
    # Texts.
    "perf_probe:replaced:reason#4": _TEXT,
    "perf_[!p]*:replaced:reason": _TEXT,
    "perf_precision:replaced:reason": _TEXT,
    "perf_*:replaced:*.source": _TEXT,
    "perf_*:replaced:DeviceError.hint": _TEXT,
    "perf_*:emptied:DeviceError.hint": "an error may do without a hint",
    "perf_*:left_out:DeviceError.hint": "an error may do without a hint",
    "perf_vendor_info:replaced:*itle.*": _TEXT,
    # What a run does not notice.
    **{f"{hook}:leaves_output:call": _LOG for hook in _OF_RANKS},
    **{f"{hook}:leaves_file_at_home:call": _CACHES for hook in _OF_RANKS},
    **{
        f"perf_{mutant}:call": _FEW_CALLS
        for mutant in (
            *("distributed_setup:delayed", "distributed_setup:each_fifth_delayed", "case_overrides:each_fifth_delayed"),
            *("distributed_setup:leaves_host_memory", "precision:leaves_host_memory", "precision:leaves_handle"),
            *("device_info:leaves_handle", "device_info:leaves_tensor", "loader_options:each_fifth_delayed"),
        )
    },
    **{f"perf_telemetry:plus_one:TelemetrySample.{key}": _SENSOR for key in ("power_w", "temperature_c", "clock_mhz")},
    "perf_telemetry:*card*:if": "the condition only asks whether there is a UUID",
    "perf_telemetry:replaced:DeviceError(0)#2": _TEXT,
    "perf_telemetry:another_error:raise*": "core says which hook failed, whatever it raises",
    "perf_precision:emptied:set_switch(0)": "the name only finds the switch again when it is put back",
    "perf_device_info:plus_one:DeviceInfo.total_bytes": "a runtime and a probe may differ by more",
    "perf_vendor_info:dropped:CHANNELS_LAST": "a vendor may declare less than its card can do",
    "perf_peak_flops:only_first_call:call": "a peak may be unknown",
    "perf_peak_flops:true:if": "a peak may be unknown",
    "perf_device_teardown:in_background:call": "it ends within milliseconds, and nothing follows it",
    "perf_device_teardown:first_arguments:call": _ONE_DEVICE,
    "perf_device_teardown:leaves_first_card:call": _ONE_DEVICE,
    "perf_device_teardown:every_second_skipped:call": "a run calls it again only after a failure",
    "perf_seed:manual_seed:manual_seed_all": _ONE_DEVICE,
    "perf_prepare_model:each_fifth_delayed:call": _FEW_CALLS,
    "perf_prepare_model:skipped:return": "a vendor may leave the memory layout as it is",
    "perf_device_info:cached_by_arguments:call": "what a card is does not change while a process runs",
    "perf_distributed_setup:leaves_tensor:call": _FEW_CALLS,
    "perf_load_runtime:second_call_fails:call": "core calls it once per worker",
    "perf_load_runtime:only_first_call:call": "core calls it once per worker",
    "perf_load_runtime:none:RuntimeInfo.sdk": "a version may be unknown",
    "perf_load_runtime:replaced:RuntimeInfo.framework": _TEXT,
    "perf_load_runtime:swapped_with_*:RuntimeInfo.sdk": "a vendor words both, and each may name torch",
    "perf_probe:set_driver_version:return": "a driver may be installed where no card is",
    "perf_probe:set_driver_version:return#2": "a driver may be installed where the SDK is not",
    **{f"perf_probe:{mutant}": _NO_CARD for mutant in ("true:if", "negated:if", "emptied:devices")},
    "perf_peak_flops:times_*:PeakFlops.flops_per_s": _NO_WITNESS,
    "perf_telemetry:nine_tenths:TelemetrySample.clock_mhz": _NO_WITNESS,
    "perf_step_end:each_fifth_delayed:call": "the vendor's own throughput falls by it",
    # Choices.
    "perf_environment:replaced:EnvironmentVariable.name": "only the vendor knows what its stack needs",
    "perf_environment:replaced:EnvironmentVariable.value": "only the vendor knows what its stack needs",
    "perf_loader_options:set_*": _PREFERENCE,
    "perf_distributed_setup:left_out:DistributedConfig.timeout_s": _PREFERENCE,
    "perf_distributed_setup:doubled:DistributedConfig.timeout_s": _PREFERENCE,
    "perf_distributed_setup:plus_one:DistributedConfig.timeout_s": _PREFERENCE,
    "perf_distributed_setup:nine_tenths:DistributedConfig.timeout_s": _PREFERENCE,
    "perf_case_overrides:doubled:CaseOverride.value": _PREFERENCE,
    "perf_case_overrides:times_*:CaseOverride.value": _PREFERENCE,
    "perf_case_overrides:plus_one:CaseOverride.value": _PREFERENCE,
    "perf_case_overrides:nine_tenths:CaseOverride.value": _PREFERENCE,
    "perf_case_overrides:emptied:CaseOverrides.overrides": _PREFERENCE,
    "perf_seed:plus_one:manual_seed_all(0)": _SEED,
    "perf_seed:negated:manual_seed_all(0)": _SEED,
}
