"""Why some generated mutants are no worse than the good plugin: patterns of their names, each with its reason."""

_CONSTANT = "the result is the same in every process and for all arguments"
_NOTHING = "the good hook does nothing"
_TEXT = "free text, which any vendor words for itself"
_PREFERENCE = "a vendor may choose this value"

EQUIVALENT: dict[str, str] = {
    # Hooks whose result does not depend on the call.
    **{
        f"{hook}:{operator}:call": _CONSTANT
        for hook in ("perf_vendor_info", "perf_loader_options", "perf_tool_commands")
        for operator in ("cached", "cached_for_a_second", "previous_result")
    },
    **{
        f"{hook}:{operator}:call": _CONSTANT
        for hook in ("perf_environment", "perf_distributed_setup", "perf_case_overrides")
        for operator in ("cached*", "previous_*", "first_arguments")
    },
    "perf_loader_options:*_arguments:call": _CONSTANT,
    "perf_loader_options:*:device": "the hook does not use its argument",
    "perf_distributed_setup:*:device": "the hook does not use its argument",
    "perf_case_overrides:*:case": "the hook does not use its argument",
    "perf_case_overrides:*:device_name": "the hook does not use its argument",
    "perf_peak_flops:*:precision": "the hook does not use its argument",
    "perf_prepare_model:*:device": "the hook does not use its argument",
    "perf_precision:*:device": "the hook does not use its argument",
    "perf_seed:*_c*:device": "the hook does not use its argument",
    "perf_seed:no_index:device": "the hook does not use its argument",
    "perf_device_teardown:*:device": "the hook does not use its argument",
    # Hooks that do nothing.
    "perf_step_end:*:device": _NOTHING,
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
    # Choices.
    "perf_loader_options:set_*": _PREFERENCE,
}
