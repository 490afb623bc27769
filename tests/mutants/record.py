"""Faults that show in the record of a run."""

from __future__ import annotations

from mutants.mutant import Change, Mutant

_FRAMEWORK = '        framework=f"pytorch-{torch.__version__} with the simulated acme backend",\n'

MUTANTS = [
    Mutant(
        name="knob_holds_undecodable_bytes",
        kills=("R5",),
        changes=(
            Change(
                old="value=str(_torch_acme().get_allow_tf32())",
                new='value=b"off \\xff".decode(errors="surrogateescape")',
            ),
        ),
    ),
    Mutant(
        name="run_cannot_load_data",
        kills=("R5",),
        changes=(Change(old="    return LoaderOptions()\n", new='    raise RuntimeError("no pinned memory")\n'),),
    ),
    Mutant(
        name="framework_is_a_path",
        kills=("R6",),
        changes=(Change(old=_FRAMEWORK, new="        framework=torch.__file__,\n"),),
    ),
    Mutant(
        name="sdk_names_the_user",
        kills=("R6",),
        changes=(Change(old=_FRAMEWORK, new='        framework="built by " + __import__("getpass").getuser(),\n'),),
    ),
]
