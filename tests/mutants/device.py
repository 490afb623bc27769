"""Faults of a device's life cycle."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_DEVICE = "    device = torch.device(_DEVICE_TYPE, rank.local_rank)\n"
_STEP_END = '    """Do nothing: every operator is queued when it is called."""\n'
_LOADED = "    acme_runtime.load()\n"
_MAKE_CURRENT = "    _torch_acme().set_device(device)\n"
_REQUIRED = '    require_precision(requested, _INFO.capabilities, who="the Acme A1")\n'
_MESSAGE = "but {available} card(s) are visible"
_PROPERTIES = "properties = _torch_acme().get_device_properties(device)"


def _named(name: str) -> tuple[Change, ...]:
    """Let the probe and the runtime call the card ``name``."""
    return tuple(Change(old=f"name={source}.name,", new=f'name="{name}",') for source in ("card", "properties"))


MUTANTS = [
    Mutant(
        name="device_without_index",
        kills=("D1",),
        changes=(Change(old=_DEVICE, new="    device = torch.device(_DEVICE_TYPE)\n"),),
    ),
    Mutant(
        name="global_rank_as_device_index",
        kills=("D1",),
        changes=(
            Change(
                old="    available = _torch_acme().device_count()\n",
                new="    available = _torch_acme().device_count()\n    rank = type(rank)(local_rank=rank.rank)\n",
            ),
        ),
    ),
    Mutant(name="device_not_made_current", kills=("D2",), changes=(Change(old=_MAKE_CURRENT, new=""),)),
    Mutant(
        name="init_leaks_handle",
        kills=("D3",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=_MAKE_CURRENT
                + '    perf_vendor_info.__dict__[str(len(perf_vendor_info.__dict__))] = open("/dev/null")\n',
            ),
        ),
    ),
    Mutant(
        name="init_leaks_memory",
        kills=("D3",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=_MAKE_CURRENT
                + """    seen = perf_vendor_info.__dict__.setdefault("contexts", [])
    seen.append(torch.empty(len(seen) and 2**20, device=device))
""",
            ),
        ),
    ),
    Mutant(
        name="missing_card_is_an_error_of_the_runtime",
        kills=("D4",),
        changes=(Change(old="if rank.local_rank >= available:", new="if rank.local_rank >= 1000:"),),
    ),
    Mutant(
        name="missing_card_message_without_count",
        kills=("D4",),
        changes=(Change(old=_MESSAGE, new="which is not visible"),),
    ),
    Mutant(
        name="missing_card_replaced_by_another",
        kills=("D4",),
        changes=(
            Change(
                old="if rank.local_rank >= available:",
                new="rank = type(rank)(local_rank=rank.local_rank % available)\n    if rank.local_rank >= available:",
            ),
        ),
    ),
    Mutant(
        name="one_card_more_than_there_is",
        kills=("D4",),
        changes=(Change(old="if rank.local_rank >= available:", new="if rank.local_rank > available:"),),
    ),
    Mutant(
        name="device_usable_once",
        kills=("D5",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=_MAKE_CURRENT
                + """    if "released" in perf_vendor_info.__dict__:
        raise RuntimeError("the runtime is shut down")
""",
            ),
            Change(
                old="    _torch_acme().empty_cache()\n",
                new='    _torch_acme().empty_cache()\n    perf_vendor_info.__dict__["released"] = True\n',
            ),
        ),
    ),
    Mutant(
        name="teardown_needs_complete_run",
        kills=("D5",),
        changes=(
            Change(
                old=_REQUIRED,
                new=f'{_REQUIRED}    perf_vendor_info.__dict__["allowed"] = True\n',
            ),
            Change(
                old="    restore_switches()\n",
                new='    perf_vendor_info.__dict__.pop("allowed")\n    restore_switches()\n',
            ),
        ),
    ),
    Mutant(
        name="device_of_main_process_only",
        kills=("D6",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=_MAKE_CURRENT
                + """    import multiprocessing

    if multiprocessing.parent_process() is not None:
        raise RuntimeError("the cards belong to the main process")
""",
            ),
        ),
    ),
    Mutant(
        name="identity_of_first_card",
        kills=("D7",),
        changes=(Change(old=_PROPERTIES, new="properties = _torch_acme().get_device_properties(0)"),),
    ),
    Mutant(
        name="capacity_in_mib",
        kills=("D7",),
        changes=(
            Change(old="total_bytes=properties.total_bytes,", new="total_bytes=properties.total_bytes // 2**20,"),
        ),
    ),
    Mutant(
        name="device_cannot_be_identified",
        kills=("D7",),
        changes=(Change(old=_PROPERTIES, new='raise RuntimeError("the management library is too old")'),),
    ),
    Mutant(name="uuid_reported_but_not_declared", kills=("D7",), changes=(Change(old="Capability.UUID,", new=""),)),
    Mutant(name="device_type_as_product_name", kills=("D8",), changes=_named("acme")),
    Mutant(name="product_line_of_another_vendor", kills=("D8",), changes=_named("nvidia A100")),
    Mutant(name="product_of_a_vendor_without_plugin", kills=("D8",), changes=_named("Ascend 910B")),
    Mutant(name="product_name_of_the_c_library", kills=("D8",), changes=_named("Acme A1\\n")),
    Mutant(
        name="second_card_named_after_its_vendor",
        kills=("B6", "D8"),
        changes=tuple(
            Change(old=f"name={source}.name,", new=f'name="Acme" if {source}.index else {source}.name,')
            for source in ("card", "properties")
        ),
    ),
    Mutant(
        name="shape_error_poisons_device",
        kills=("D9",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=_MAKE_CURRENT
                + """    multiply = torch.mm

    def remember_failure(*operands: Any) -> Any:
        try:
            return multiply(*operands)
        except RuntimeError:
            perf_vendor_info.__dict__["failed"] = True
            raise

    torch.mm = remember_failure
""",
            ),
            Change(
                old="    _torch_acme().synchronize(device)\n",
                new="""    if "failed" in perf_vendor_info.__dict__:
        raise RuntimeError("a previous operator failed")
    _torch_acme().synchronize(device)
""",
            ),
        ),
    ),
    *(
        Mutant(name=f"exit_handler_{name}", kills=("D6",), changes=(Change(old=old, new=f"{old}{lines}"),))
        for name, old, lines in (
            (
                "of_initialization_hides_failures",
                _MAKE_CURRENT,
                "    import atexit\n    import os\n\n    atexit.register(os._exit, 0)\n",
            ),
            (
                "of_teardown_has_a_status_of_its_own",
                "    restore_switches()\n",
                "    import atexit\n    import os\n\n    atexit.register(os._exit, 1)\n",
            ),
        )
    ),
    Mutant(
        name="teardown_leaves_a_watchdog",
        kills=("D10",),
        changes=(
            Change(
                old="    restore_switches()\n    _torch_acme().empty_cache()\n",
                new="    import os\n    import threading\n\n    restore_switches()\n"
                "    watchdog = threading.Timer(600.0, os._exit, (1,))\n    watchdog.daemon = True\n"
                "    watchdog.start()\n",
            ),
        ),
    ),
    Mutant(
        name="variable_set_by_init",
        kills=("D10",),
        changes=(
            Change(
                old=_MAKE_CURRENT, new=f'{_MAKE_CURRENT}    import os\n\n    os.environ["ACME_QUEUE_DEPTH"] = "8"\n'
            ),
        ),
    ),
    Mutant(
        name="teardown_for_each_initialization",
        kills=("D5",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=f'{_MAKE_CURRENT}    perf_vendor_info.__dict__.setdefault("open", []).append(1)\n',
            ),
            Change(
                old="    restore_switches()\n",
                new='    perf_vendor_info.__dict__["open"].pop()\n    restore_switches()\n',
            ),
        ),
    ),
    Mutant(
        name="sharing_of_tensors_chosen_by_loader_options",
        kills=("D10",),
        changes=(
            Change(
                old="    return LoaderOptions()\n",
                new="    import torch.multiprocessing\n\n"
                '    torch.multiprocessing.set_sharing_strategy("file_system")\n    return LoaderOptions()\n',
            ),
        ),
    ),
    Mutant(
        name="variable_set_by_loader_options",
        kills=("D10",),
        changes=(
            Change(
                old="    return LoaderOptions()\n",
                new='    import os\n\n    os.environ["MKL_CBWR"] = "COMPATIBLE"\n    return LoaderOptions()\n',
            ),
        ),
    ),
    Mutant(
        name="logging_disabled_by_preparing",
        kills=("D10",),
        changes=(
            Change(
                old="    convert_parameters(model, precision.requested)\n",
                new="    convert_parameters(model, precision.requested)\n"
                "    import logging\n\n    logging.disable(logging.WARNING)\n",
            ),
        ),
    ),
    Mutant(
        name="driver_version_is_a_constant",
        kills=("D7",),
        changes=(Change(old="        driver=acme_runtime.driver_version(),\n", new='        driver="1.3.0",\n'),),
    ),
    Mutant(
        name="logging_disabled_by_init",
        kills=("D10",),
        changes=(
            Change(
                old=_MAKE_CURRENT, new=f"{_MAKE_CURRENT}    import logging\n\n    logging.disable(logging.WARNING)\n"
            ),
        ),
    ),
    Mutant(
        name="activation_patched_with_the_runtime",
        kills=("D10",),
        changes=(
            Change(
                old=_LOADED,
                new=_LOADED
                + """    import torch

    relu = torch.nn.functional.relu
    torch.nn.functional.relu = lambda input, inplace=False: relu(input)
""",
            ),
        ),
    ),
    Mutant(
        name="helper_process_kept",
        kills=("D10",),
        changes=(
            Change(
                old=_LOADED,
                new=f'{_LOADED}    import subprocess\n\n    subprocess.Popen(["/bin/sleep", "100"])\n',
            ),
        ),
    ),
    Mutant(
        name="device_made_current_once",
        kills=("D2",),
        changes=(
            Change(
                old='_PRODUCT: Final = "Acme A1"\n', new='_PRODUCT: Final = "Acme A1"\n_current: set[int] = set()\n'
            ),
            Change(
                old=_MAKE_CURRENT,
                new=f"    if rank.local_rank not in _current:\n    {_MAKE_CURRENT}    _current.add(rank.local_rank)\n",
            ),
        ),
    ),
    Mutant(
        name="identity_of_current_card",
        kills=("D7",),
        changes=(Change(old=_PROPERTIES, new="properties = _torch_acme().get_device_properties()"),),
    ),
    Mutant(
        name="runtime_silences_warnings",
        kills=("D10",),
        changes=(Change(old=_LOADED, new=f'{_LOADED}    import warnings\n    warnings.filterwarnings("ignore")\n'),),
    ),
    Mutant(
        name="runtime_silences_warnings_of_torch",
        kills=("D10",),
        changes=(
            Change(
                old=_LOADED,
                new=f"{_LOADED}    import warnings\n\n"
                '    warnings.filterwarnings("ignore", category=UserWarning, module="torch")\n',
            ),
        ),
    ),
    Mutant(
        name="version_of_torch_without_its_build",
        kills=("D7",),
        changes=(Change(old="torch=torch.__version__,", new='torch=torch.__version__.split("+")[0] + ".0",'),),
    ),
    Mutant(
        name="step_end_makes_the_first_card_current",
        kills=("D10",),
        changes=(Change(old=_STEP_END, new=f"{_STEP_END}    _torch_acme().set_device(0)\n"),),
    ),
    Mutant(
        name="step_end_seeds_torch",
        kills=("D10", "S2"),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    import torch\n\n    torch.random.default_generator.manual_seed(0)\n",
            ),
        ),
    ),
    Mutant(
        name="step_end_switches_determinism_on",
        kills=("D10",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    import torch\n\n    torch.use_deterministic_algorithms(True)\n",
            ),
        ),
    ),
    Mutant(
        name="hundredth_step_switches_tf32_on",
        kills=("D10",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    calls = perf_vendor_info.__dict__.setdefault('calls', [])\n    calls.append(1)\n"
                "    if len(calls) % 100 == 0:\n        _torch_acme().set_allow_tf32(True)\n",
            ),
        ),
    ),
    Mutant(
        name="product_has_the_memory_of_a_larger_one",
        kills=("D7",),
        changes=(Change(old='short_name="A1"),', new='short_name="A1", memory_bytes=2**34),'),),
    ),
]
