"""Faults of reading memory."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_ALLOCATED = "allocated_bytes=_torch_acme().memory_allocated(device),"
_PEAK = "peak_allocated_bytes=_torch_acme().max_memory_allocated(device),"
_RESERVED = "        reserved_bytes=_torch_acme().memory_reserved(device),"
_PEAK_RESERVED = "peak_reserved_bytes=_torch_acme().max_memory_reserved(device),"
_USED = "used_bytes=total_bytes - free_bytes,"
_KEPT = "_PEAK_FLOPS_PER_S: Final = 100e9\n"
_QUERY = "    free_bytes, total_bytes = _torch_acme().mem_get_info(device)\n"
_RESET = "    _torch_acme().reset_peak_memory_stats(device)\n"
_MAKE_CURRENT = "    _torch_acme().set_device(device)\n"
_STEP_END = '    """Do nothing: every operator is queued when it is called."""\n'


def _total(total: str) -> tuple[Change, ...]:
    """Let the query say ``total`` of the card's capacity."""
    return (Change(old="        total_bytes=total_bytes,\n", new=f"        total_bytes={total},\n"),)


def _after_query(statement: str) -> tuple[Change, ...]:
    """Do something between reading the counters and returning them."""
    start, end = "    return MemoryStats(\n", "        total_bytes=total_bytes,\n    )\n"
    return (
        Change(old=start, new="    stats = MemoryStats(\n"),
        Change(old=end, new=f"{end}    {statement}\n    return stats\n"),
    )


def _field(line: str, expression: str) -> tuple[Change, ...]:
    """Let the query give another value for the field of this line."""
    return (Change(old=f"        {line.strip()}", new=f"        {line.strip().partition('=')[0]}={expression},"),)


def _remembering(before: str, after: str) -> tuple[Change, ...]:
    """Do something before a query and after it, with what is in ``_kept``."""
    read, answer = _after_query(after)
    return (
        Change(old=_KEPT, new=f"{_KEPT}_kept: dict[Any, Any] = {{}}\n"),
        Change(old=_QUERY, new=f"{before}{_QUERY}"),
        read,
        answer,
    )


def _seen_by_queries(peak: str, current: str) -> tuple[Change, ...]:
    """Let the peak of this line be the highest value that a query has read with ``current`` since the last reset."""
    now = f"_torch_acme().{current}(device)"
    return (
        *_remembering(f"    _kept[device] = max(_kept.get(device, 0), {now})\n", "pass"),
        *_field(peak, "_kept[device]"),
        Change(old=_RESET, new=f"    _kept[device] = {now}\n{_RESET}"),
    )


def _kept_by_each_step(elements: str) -> tuple[Change, ...]:
    """Return a plugin that keeps a tensor of so many elements at the end of each step."""
    kept = f"""    import torch

    perf_vendor_info.__dict__.setdefault("kept", []).append(torch.empty({elements}, device=device))
"""
    return (Change(old=_STEP_END, new=_STEP_END + kept),)


MUTANTS = [
    Mutant(
        name="host_memory_as_card_memory",
        kills=("M1",),
        changes=_total('__import__("psutil").virtual_memory().total'),
    ),
    Mutant(name="total_in_mib", kills=("M1",), changes=_total("total_bytes // 2**20")),
    Mutant(name="total_unknown", kills=("M1",), changes=_total("None")),
    Mutant(
        name="allocated_in_mib",
        kills=("M2", "M3", "M6"),
        changes=(Change(old=f"        {_ALLOCATED}", new=f"        {_ALLOCATED[:-1]} // 2**20,"),),
    ),
    Mutant(
        name="cache_counts_as_allocated",
        kills=("M2", "M3"),
        changes=(
            Change(old=f"        {_ALLOCATED}", new="        allocated_bytes=_torch_acme().memory_reserved(device),"),
        ),
    ),
    Mutant(name="peak_is_current_value", kills=("M3", "M6"), changes=(Change(old=_PEAK, new=f"peak_{_ALLOCATED}"),)),
    Mutant(name="peak_is_never_reset", kills=("M3",), changes=(Change(old=_RESET, new="    pass\n"),)),
    Mutant(
        name="query_resets_peak",
        kills=("M3", "M4", "M6"),
        changes=_after_query("_torch_acme().reset_peak_memory_stats(device)"),
    ),
    Mutant(name="query_empties_cache", kills=("M3", "M4", "M6"), changes=_after_query("_torch_acme().empty_cache()")),
    Mutant(
        name="end_of_step_resets_the_peaks",
        kills=("M3",),
        changes=(Change(old=_STEP_END, new=f"{_STEP_END}{_RESET}"),),
    ),
    Mutant(
        name="query_needs_an_allocator",
        kills=("M5",),
        changes=(
            Change(
                old=_QUERY,
                new=_QUERY
                + """    if _torch_acme().memory_reserved(device) == 0:
        raise RuntimeError("the allocator is not initialized")
""",
            ),
        ),
    ),
    Mutant(
        name="context_counts_as_allocated",
        kills=("M2", "M3", "M5", "M6"),
        changes=tuple(
            Change(old=f"        {line}", new=f"        {line[:-1]} + 2**28,") for line in (_ALLOCATED, _PEAK)
        ),
    ),
    Mutant(
        name="memory_of_current_card",
        kills=("M6",),
        changes=(Change(old=f"        {_ALLOCATED}", new="        allocated_bytes=_torch_acme().memory_allocated(),"),),
    ),
    Mutant(
        name="memory_of_all_cards",
        kills=("M6",),
        changes=(
            Change(
                old=f"        {_ALLOCATED}",
                new="        allocated_bytes=sum(map(_torch_acme().memory_allocated, (0, 1))),",
            ),
        ),
    ),
    Mutant(name="step_leaves_a_small_tensor_behind", kills=("M7",), changes=_kept_by_each_step("4")),
    Mutant(name="step_leaves_memory_behind", kills=("M3", "M7"), changes=_kept_by_each_step("2**18")),
    Mutant(
        name="unknown_reserved_is_zero",
        kills=("M2", "M3", "M6", "M8"),
        changes=(Change(old=_RESERVED, new="        reserved_bytes=0,"),),
    ),
    Mutant(
        name="reserved_reported_but_not_declared",
        kills=("M8",),
        changes=(Change(old="Capability.MEMORY_RESERVED,", new=""),),
    ),
    Mutant(
        name="reserved_declared_but_unknown",
        kills=("M8",),
        changes=(Change(old=_RESERVED, new="        reserved_bytes=None,"),),
    ),
    Mutant(
        name="out_of_memory_as_any_error",
        kills=("M9",),
        changes=(
            Change(
                old=_MAKE_CURRENT,
                new=_MAKE_CURRENT
                + """    allocate = torch.empty

    def with_error_code(*size: Any, **options: Any) -> Any:
        try:
            return allocate(*size, **options)
        except torch.OutOfMemoryError:
            raise RuntimeError("acmeMalloc returned 2") from None

    torch.empty = with_error_code
""",
            ),
        ),
    ),
    Mutant(name="total_is_what_is_free", kills=("M1",), changes=_total("free_bytes")),
    Mutant(
        name="capacity_of_identity_is_what_is_free",
        kills=("M1",),
        changes=(
            Change(
                old="        total_bytes=properties.total_bytes,\n",
                new="        total_bytes=_torch_acme().mem_get_info(device)[0],\n",
            ),
        ),
    ),
    Mutant(
        name="allocated_in_elements",
        kills=("M2", "M3", "M6"),
        changes=_field(
            _ALLOCATED,
            "sum(each.numel() for each in __import__('gc').get_objects() if type(each) is __import__('torch').Tensor "
            "and each.device == device)",
        ),
    ),
    Mutant(
        name="allocated_in_kilobytes_of_kibibytes",
        kills=("M2", "M3", "M6"),
        changes=_field(_ALLOCATED, "_torch_acme().memory_allocated(device) // 1024 * 1000"),
    ),
    Mutant(
        name="reserved_is_allocated",
        kills=("M3",),
        changes=_field(_RESERVED, "_torch_acme().memory_allocated(device)"),
    ),
    Mutant(name="used_is_allocated", kills=("M2",), changes=_field(_USED, "_torch_acme().memory_allocated(device)")),
    Mutant(name="used_is_free", kills=("M2", "M6"), changes=_field(_USED, "free_bytes")),
    Mutant(
        name="peak_reserved_is_reserved",
        kills=("M3",),
        changes=_field(_PEAK_RESERVED, "_torch_acme().memory_reserved(device)"),
    ),
    Mutant(
        name="peak_reserved_is_peak_allocated",
        kills=("M3",),
        changes=_field(_PEAK_RESERVED, "_torch_acme().max_memory_allocated(device)"),
    ),
    Mutant(
        name="peak_is_what_queries_saw",
        kills=("M3", "M6"),
        changes=_seen_by_queries(_PEAK, "memory_allocated"),
    ),
    Mutant(
        name="peak_of_reserved_only_if_a_query_saw_it",
        kills=("M3",),
        changes=_seen_by_queries(_PEAK_RESERVED, "memory_reserved"),
    ),
    Mutant(
        name="reset_empties_cache",
        kills=("M3",),
        changes=(Change(old=_RESET, new=f"    _torch_acme().empty_cache()\n{_RESET}"),),
    ),
    Mutant(
        name="reset_of_current_card",
        kills=("M6",),
        changes=(Change(old=_RESET, new="    _torch_acme().reset_peak_memory_stats()\n"),),
    ),
    Mutant(
        name="peak_of_current_card",
        kills=("M6",),
        changes=_field(_PEAK, "_torch_acme().max_memory_allocated()"),
    ),
    Mutant(
        name="reserved_of_first_card",
        kills=("M6",),
        changes=_field(_RESERVED, "_torch_acme().memory_reserved(0)"),
    ),
    Mutant(
        name="query_answers_with_the_last_one",
        kills=("M2", "M3", "M6"),
        changes=_remembering("", "stats, _kept[device] = _kept.get(device, stats), stats"),
    ),
    Mutant(
        name="query_makes_card_current",
        kills=("M6",),
        changes=(Change(old=_QUERY, new=f"{_MAKE_CURRENT}{_QUERY}"),),
    ),
    Mutant(
        name="query_keeps_a_file_open",
        kills=("M4",),
        changes=_remembering("", "_kept[len(_kept)] = open('/dev/null')"),
    ),
    Mutant(
        name="query_keeps_host_memory",
        kills=("M4",),
        changes=_remembering("", "_kept[len(_kept)] = bytearray(200_000)"),
    ),
    Mutant(
        name="reset_keeps_host_memory",
        kills=("M4",),
        changes=(
            Change(old=_RESET, new=f"{_RESET}    _kept.append(bytearray(2**20))\n"),
            Change(old=_KEPT, new=f"{_KEPT}_kept: Any = []\n"),
        ),
    ),
    Mutant(
        name="query_empties_cache_first",
        kills=("M4",),
        changes=(Change(old=_QUERY, new=f"    _torch_acme().empty_cache()\n{_QUERY}"),),
    ),
    Mutant(
        name="every_hundredth_step_resets_the_peaks",
        kills=("M3",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    calls = perf_vendor_info.__dict__.setdefault('calls', [])\n    calls.append(1)\n"
                "    if len(calls) % 100 == 0:\n        perf_memory_reset_peak(device)\n",
            ),
        ),
    ),
    Mutant(
        name="allocated_in_32_bits",
        kills=("M2", "M3"),
        changes=(Change(old=_ALLOCATED, new=_ALLOCATED.replace("(device)", "(device) % 2**32")),),
        environment={"ACME_MEMORY_BYTES": str(2**34)},
    ),
    Mutant(
        name="step_leaves_a_little_host_memory_behind",
        kills=("M7",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    perf_vendor_info.__dict__.setdefault('kept', []).append(b'1' * 10_000)\n",
            ),
        ),
    ),
    Mutant(
        name="reset_empties_a_large_cache",
        kills=("M3",),
        changes=(
            Change(
                old=_RESET,
                new="    if _torch_acme().memory_reserved(device) > 2**29:\n"
                f"        _torch_acme().empty_cache()\n{_RESET}",
            ),
        ),
    ),
    Mutant(
        name="step_in_a_hundred_leaves_memory_behind",
        kills=("M7",),
        changes=(
            Change(
                old=_STEP_END,
                new=f"{_STEP_END}    import torch\n\n"
                '    kept = perf_vendor_info.__dict__.setdefault("kept", [])\n'
                "    kept.append(None if len(kept) % 100 else torch.empty(2**12, device=device))\n",
            ),
        ),
    ),
]
