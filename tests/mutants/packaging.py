"""Faults of a plugin as a package."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_METADATA = "chipperf_acme-0.1.0.dist-info/METADATA"
_ENTRY_POINTS = "chipperf_acme-0.1.0.dist-info/entry_points.txt"
_ENTRY_POINT = "acme = chipperf_acme.plugin\n"
_REQUIREMENT = "Requires-Dist: chipperf>=0.1,<1\n"
_FIRST_IMPORT = "from typing import TYPE_CHECKING, Any, Final\n"
_PROBE_DOCSTRING = '    """Ask the management library, if it is installed, for the visible cards."""\n'
_RETURN_INFO = "    return _INFO\n"
_TEMPLATE = "chipperf_acme/templates/report.md.j2"


def _at_import(code: str) -> tuple[Change, ...]:
    return (Change(old=_FIRST_IMPORT, new=_FIRST_IMPORT + code),)


def _in_probe(code: str) -> tuple[Change, ...]:
    return (Change(old=_PROBE_DOCSTRING, new=_PROBE_DOCSTRING + code),)


def _in_environment(code: str) -> tuple[Change, ...]:
    docstring = '    """Keep every card on one core of the host, which computes for it."""\n'
    return (Change(old=docstring, new=docstring + code),)


def _in_overrides(code: str) -> tuple[Change, ...]:
    docstring = '    """Evaluate with batches that fit into a simulated card."""\n'
    return (Change(old=docstring, new=docstring + code),)


def _without_hook(name: str) -> tuple[Change, ...]:
    return (Change(old=f"@hookimpl\ndef perf_{name}(", new=f"def _{name}("),)


MUTANTS = [
    Mutant(
        name="entry_point_in_misspelled_group",
        kills=("A1",),
        changes=(
            Change(
                file=_ENTRY_POINTS,
                old=_ENTRY_POINT,
                new=f"{_ENTRY_POINT}[chipperf.observer]\nboard = chipperf_acme.plugin\n",
            ),
        ),
    ),
    Mutant(
        name="entry_point_names_no_module",
        kills=("A1",),
        changes=(Change(file=_ENTRY_POINTS, old=_ENTRY_POINT, new="acme = chipperf_acme.hooks\n"),),
    ),
    Mutant(
        name="entry_point_names_a_function",
        kills=("A1",),
        changes=(Change(file=_ENTRY_POINTS, old=_ENTRY_POINT, new="acme = chipperf_acme.plugin:perf_probe\n"),),
    ),
    Mutant(name="import_crashes", kills=("A1",), changes=_at_import("import ctypes\nctypes.string_at(0)\n")),
    Mutant(name="import_ends_the_process", kills=("A1",), changes=_at_import("import os\nos._exit(0)\n")),
    Mutant(
        name="vendor_has_another_name",
        kills=("A2",),
        changes=(Change(old='    name="acme",\n', new='    name="acme2",\n'),),
    ),
    Mutant(
        name="vendor_name_is_capitalised",
        kills=("A2",),
        changes=(Change(old='    name="acme",\n', new='    name="Acme",\n'),),
    ),
    Mutant(
        name="core_without_upper_bound",
        kills=("A3",),
        changes=(Change(file=_METADATA, old=_REQUIREMENT, new="Requires-Dist: chipperf>=0.1\n"),),
    ),
    Mutant(
        name="core_without_lower_bound",
        kills=("A3",),
        changes=(Change(file=_METADATA, old=_REQUIREMENT, new="Requires-Dist: chipperf<1\n"),),
    ),
    Mutant(
        name="core_required_by_an_extra_only",
        kills=("A3",),
        changes=(Change(file=_METADATA, old=_REQUIREMENT, new="Requires-Dist: chipperf<1,>=0.1; extra == 'test'\n"),),
    ),
    Mutant(
        name="torch_required",
        kills=("A3",),
        changes=(Change(file=_METADATA, old=_REQUIREMENT, new=f"{_REQUIREMENT}Requires-Dist: torch>=2.4\n"),),
    ),
    Mutant(
        name="torch_required_by_an_extra_of_core",
        kills=("A3",),
        changes=(Change(file=_METADATA, old=_REQUIREMENT, new="Requires-Dist: chipperf[train]>=0.1,<1\n"),),
    ),
    Mutant(name="import_takes_seconds", kills=("A4",), changes=_at_import("import time\ntime.sleep(1.2)\n")),
    Mutant(
        name="torch_imported_at_import",
        kills=("A4",),
        # An empty module stands in for torch, whose import takes seconds.
        changes=(*_at_import("import torch\n"), Change(file="torch.py", new="", is_installed=False)),
    ),
    Mutant(name="runtime_imported_at_import", kills=("A4",), changes=_at_import("import acme_runtime\n")),
    Mutant(
        name="runtime_library_opened_at_import",
        kills=("A4",),
        changes=_at_import('import ctypes\nctypes.CDLL("libm.so.6")\n'),
    ),
    Mutant(
        name="environment_changed_at_import",
        kills=("A5",),
        changes=_at_import('import os\nos.environ["ACME_TRACE"] = "1"\n'),
    ),
    Mutant(
        name="import_hooked_at_import",
        kills=("A5",),
        changes=_at_import(
            "import builtins\n_import = builtins.__import__\n"
            "builtins.__import__ = lambda *args, **kwargs: _import(*args, **kwargs)\n"
        ),
    ),
    Mutant(
        name="core_patched_at_import",
        kills=("A5",),
        changes=_at_import("from chipperf import hardware\nhardware.run_tool = lambda *_: None\n"),
    ),
    Mutant(name="banner_printed_at_import", kills=("A5",), changes=_at_import('print("Acme SDK 2.1")\n')),
    *(
        Mutant(name=f"{what}_at_import", kills=("A5",), changes=_at_import(f"import {code}\n"))
        for what, code in {
            "logging_configured": "logging; logging.basicConfig(level=logging.INFO)",
            "core_silenced": "logging; logging.getLogger('chipperf').setLevel(logging.CRITICAL)",
            "warnings_ignored": "warnings; warnings.filterwarnings('ignore')",
            "start_method_set": "multiprocessing; multiprocessing.set_start_method('spawn', force=True)",
            "recursion_limit_raised": "sys; sys.setrecursionlimit(50_000)",
            "umask_set": "os; os.umask(0o077)",
            "method_patched": "json; json.JSONEncoder.default = lambda self, value: str(value)",
            "banner_printed_to_stderr": "sys; print('Acme SDK 2.1', file=sys.stderr)",
            "cache_made": "os; os.makedirs(os.path.dirname(__file__) + '/cache', exist_ok=True)",
            "random_seeded": "random; random.seed(0)",
            "exit_handler_registered": "atexit; atexit.register(print, 'bye')",
        }.items()
    ),
    Mutant(
        name="device_file_left_open_by_probe",
        kills=("A5",),
        changes=_in_probe("    import os\n    os.open(os.devnull, os.O_RDONLY)\n"),
    ),
    Mutant(
        name="environment_set_for_determinism",
        kills=("A5",),
        changes=_in_environment(
            '    if settings.deterministic:\n        import os\n\n        os.environ["ACME_DETERMINISTIC"] = "1"\n'
        ),
    ),
    Mutant(
        name="tool_run_at_import",
        kills=("A5",),
        changes=_at_import('import subprocess\nsubprocess.run(["/bin/true"])\n'),
    ),
    Mutant(
        name="signals_handled_at_import",
        kills=("A5",),
        changes=_at_import("import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n"),
    ),
    Mutant(
        name="environment_changed_by_probe",
        kills=("A5",),
        changes=_in_probe('    import os\n    os.environ["ACME_TRACE"] = "1"\n'),
    ),
    Mutant(
        name="thread_left_by_probe",
        kills=("A5",),
        changes=_in_probe(
            "    import threading\n    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        ),
    ),
    Mutant(
        name="daemon_left_by_probe",
        kills=("A5",),
        changes=_in_probe('    import subprocess\n    subprocess.Popen(["/bin/sleep", "60"])\n'),
    ),
    Mutant(
        name="second_registration_fails",
        kills=("A6",),
        changes=(
            Change(
                old=_RETURN_INFO,
                new="""    if "registered" in perf_vendor_info.__dict__:
        raise RuntimeError("the plugin is registered already")
    perf_vendor_info.__dict__["registered"] = True
    return _INFO
""",
            ),
        ),
    ),
    Mutant(
        name="spawned_process_is_refused",
        kills=("A6",),
        changes=_at_import(
            "import multiprocessing\nif multiprocessing.parent_process():\n    raise RuntimeError('not for children')\n"
        ),
    ),
    Mutant(
        name="order_of_names_from_a_set",
        kills=("A6",),
        changes=(
            Change(
                old="visible_devices_env=(_VISIBLE_VARIABLE,),",
                new='visible_devices_env=(_VISIBLE_VARIABLE, *{f"ACME_CARDS_{number}" for number in range(9)}),',
            ),
        ),
    ),
    Mutant(
        name="hook_misspelled",
        kills=("A7",),
        changes=(Change(old="def perf_loader_options(", new="def perf_loader_option("),),
    ),
    Mutant(
        name="hook_unmarked",
        kills=("A7",),
        changes=(Change(old="@hookimpl\ndef perf_loader_options(", new="def perf_loader_options("),),
    ),
    Mutant(
        name="hook_argument_misspelled",
        kills=("A7",),
        changes=(Change(old="def perf_step_end(device: torch.device)", new="def perf_step_end(dev: torch.device)"),),
    ),
    Mutant(
        name="hook_asks_to_be_last",
        kills=("A8",),
        changes=(Change(old="@hookimpl\ndef perf_step_end(", new="@hookimpl(trylast=True)\ndef perf_step_end("),),
    ),
    Mutant(
        name="hook_argument_has_default",
        kills=("A8",),
        changes=(
            Change(
                old="def perf_seed(seed: int, device: torch.device, deterministic: bool)",
                new="def perf_seed(seed: int, device: torch.device, deterministic: bool = False)",
            ),
        ),
    ),
    Mutant(name="required_hook_missing", kills=("A9",), changes=_without_hook("synchronize")),
    Mutant(
        name="vendor_info_is_a_dict",
        kills=("A10",),
        changes=(Change(old=_RETURN_INFO, new='    return {"name": "acme", "device_type": _DEVICE_TYPE}\n'),),
    ),
    Mutant(
        name="vendor_info_depends_on_the_stack",
        kills=("A10",),
        changes=(
            Change(
                old=_RETURN_INFO,
                new="    from dataclasses import replace\n    from importlib.util import find_spec\n\n"
                '    return _INFO if find_spec("acme_runtime") else replace(_INFO, known_devices=())\n',
            ),
        ),
    ),
    Mutant(
        name="probe_result_is_a_list",
        kills=("A10",),
        changes=_in_probe("    return []\n"),
    ),
    Mutant(
        name="environment_is_a_dict",
        kills=("A10",),
        changes=(Change(old="        return (threads,)\n", new='        return {"OMP_NUM_THREADS": "1"}\n'),),
    ),
    Mutant(
        name="probed_memory_in_mib",
        kills=("A10",),
        changes=(Change(old="total_bytes=card.total_bytes", new="total_bytes=card.total_bytes // 2**20"),),
    ),
    Mutant(
        name="product_name_and_short_name_swapped",
        kills=("A10",),
        changes=(
            Change(
                old='KnownDevice(name=_PRODUCT, short_name="A1")', new='KnownDevice(name="A1", short_name=_PRODUCT)'
            ),
        ),
    ),
    Mutant(
        name="peak_in_gigaflops",
        kills=("A10",),
        changes=(Change(old="flops_per_s=_PEAK_FLOPS_PER_S", new="flops_per_s=_PEAK_FLOPS_PER_S / 1e9"),),
    ),
    Mutant(
        name="environment_of_one_precision_is_a_dict",
        kills=("A10",),
        changes=_in_environment(
            '    if settings.precision == "bf16" and settings.case == "detr":\n        return {}\n'
        ),
    ),
    Mutant(
        name="variable_of_other_ranks_is_a_number",
        kills=("A10",),
        changes=_in_environment(
            "    if rank.local_rank:\n"
            '        return (EnvironmentVariable(name="ACME_CORE", value=rank.local_rank, reason="a core for each"),)\n'
        ),
    ),
    Mutant(
        name="overrides_of_another_card_fail",
        kills=("A10",),
        changes=_in_overrides('    if device_name not in ("", _PRODUCT):\n        raise KeyError(device_name)\n'),
    ),
    Mutant(
        name="overrides_of_an_unknown_case_fail",
        kills=("A10",),
        changes=_in_overrides(
            '    known = ("detr", "detr_masks", "detr_panoptic", "gpt2", "mobilenetv2", "resnet50")\n'
            "    known.index(case)\n"
        ),
    ),
    Mutant(
        name="private_pattern_hides_memory",
        kills=("A10",),
        changes=(
            Change(
                old="    return ()\n",
                new='    return (ToolCommand(name="smi", argv=("acme-smi", "-q"), private_patterns=("[0-9]{10}",)),)\n',
            ),
        ),
    ),
    Mutant(
        name="overrides_depend_on_the_host",
        kills=("A10",),
        changes=_in_overrides("    import os\n\n    if os.cpu_count() == 3:\n        return CaseOverrides()\n"),
    ),
    Mutant(
        name="overrides_depend_on_a_variable",
        kills=("A10",),
        changes=_in_overrides('    import os\n\n    if "ACME_TUNED" in os.environ:\n        return CaseOverrides()\n'),
    ),
    Mutant(
        name="environment_names_the_process",
        kills=("A10",),
        changes=_in_environment(
            "    import os\n\n"
            '    job = EnvironmentVariable(name="ACME_JOB", value=str(os.getpid()), reason="a name for the job")\n'
            "    if rank.world_size > 1:\n        return (job,)\n"
        ),
    ),
    Mutant(
        name="products_known_if_one_card_is_visible",
        kills=("A10",),
        changes=(
            Change(
                old=_RETURN_INFO,
                new="    import dataclasses\n    import os\n\n"
                '    known = _INFO.known_devices if os.environ.get(_VISIBLE_VARIABLE) == "0" else ()\n'
                "    return dataclasses.replace(_INFO, known_devices=known)\n",
            ),
        ),
    ),
    Mutant(
        name="peak_of_sparse_products",
        kills=("A10",),
        changes=(Change(old='source="kConvolutionFlopsPerS of', new='source="data sheet (with sparsity) of'),),
    ),
    Mutant(
        name="peak_of_every_card",
        kills=("A10",),
        changes=(Change(old="    if device_name != _PRODUCT:\n        return None\n", new=""),),
    ),
    Mutant(
        name="slices_have_the_peak_of_the_card",
        kills=("A10",),
        changes=(Change(old="    if device_name != _PRODUCT:\n", new="    if _PRODUCT not in device_name:\n"),),
    ),
    Mutant(
        name="tool_sets_persistence_mode",
        kills=("A10",),
        changes=(
            Change(old="    return ()\n", new='    return (ToolCommand(name="smi", argv=("acme-smi", "-pm", "1")),)\n'),
        ),
    ),
    Mutant(
        name="tool_resets_the_card",
        kills=("A10",),
        changes=(
            Change(
                old="    return ()\n", new='    return (ToolCommand(name="smi", argv=("acme-smi", "--gpu-reset")),)\n'
            ),
        ),
    ),
    Mutant(
        name="written_for_a_later_api_version",
        kills=("A11",),
        changes=(Change(old='    name="acme",\n', new='    name="acme",\n    api_version="1.7",\n'),),
    ),
    Mutant(
        name="written_for_another_api_version",
        kills=("A11",),
        changes=(Change(old='    name="acme",\n', new='    name="acme",\n    api_version="2.0",\n'),),
    ),
    Mutant(
        name="telemetry_not_declared",
        kills=("A12",),
        changes=(Change(old="            Capability.TELEMETRY,\n", new=""),),
    ),
    Mutant(name="distributed_declared_without_hook", kills=("A12",), changes=_without_hook("distributed_setup")),
    Mutant(name="precisions_declared_without_hook", kills=("A12",), changes=_without_hook("precision")),
    Mutant(
        name="private_name_of_core_imported",
        kills=("A13",),
        changes=_at_import("from chipperf.plugin.selection import _select_only_available\n"),
    ),
    Mutant(
        name="private_name_of_core_read",
        kills=("A13",),
        changes=_at_import("import chipperf.hardware as core\n_CLASS = core._DISPLAY_CLASS\n"),
    ),
    Mutant(
        name="licence_missing",
        kills=("A14",),
        changes=(Change(file="chipperf_acme-0.1.0.dist-info/licenses/LICENSE", new=None),),
    ),
    Mutant(
        name="private_name_of_core_got",
        kills=("A13",),
        changes=_at_import('import chipperf.hardware\n_CLASS = getattr(chipperf.hardware, "_DISPLAY_CLASS")\n'),
    ),
    Mutant(
        name="package_brings_a_sitecustomize",
        kills=("A14",),
        changes=(Change(file="sitecustomize.py", new='import os\nos.environ.setdefault("ACME_RING", "1")\n'),),
    ),
    Mutant(
        name="path_file_runs_code",
        kills=("A14",),
        changes=(Change(file="acme.pth", new='import os; os.environ.setdefault("ACME_RING", "1")\n'),),
    ),
    Mutant(
        name="package_brings_a_torch",
        kills=("A14",),
        changes=(Change(file="torch/acme.py", new=""),),
    ),
    Mutant(name="type_marker_missing", kills=("A14",), changes=(Change(file="chipperf_acme/py.typed", new=None),)),
    Mutant(
        name="template_extends_one_that_is_missing",
        kills=("A14",),
        changes=(Change(file=_TEMPLATE, new='{% extends "vendor/base.md.j2" %}\n'),),
    ),
    Mutant(
        name="named_template_missing",
        kills=("A14",),
        changes=_at_import('_SUMMARY = "summary.md.j2"\n'),
    ),
    Mutant(
        name="private_pattern_is_malformed",
        kills=("A10",),
        changes=(
            Change(
                old="    return ()\n",
                new='    return (ToolCommand(name="smi", argv=("acme-smi", "-q"), private_patterns=("SN[0-9",)),)\n',
            ),
        ),
    ),
    Mutant(
        name="product_is_known_twice",
        kills=("A10",),
        changes=(
            Change(
                old='KnownDevice(name=_PRODUCT, short_name="A1"),',
                new='KnownDevice(name=_PRODUCT, short_name="A1"), KnownDevice(name="ACME A1", short_name="A1 OAM"),',
            ),
        ),
    ),
    Mutant(
        name="overrides_are_those_of_the_first_job",
        kills=("A10",),
        changes=(
            Change(old="value=4,", new="value=perf_vendor_info.__dict__.setdefault(case, min(rank.world_size, 4)),"),
        ),
    ),
]
