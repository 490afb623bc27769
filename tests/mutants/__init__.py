"""Deliberately broken plugins, at least one per check of the contract, and the table of what finds them.

Each module but :mod:`mutants.mutant` and :mod:`mutants.trial` holds a list ``MUTANTS`` for one area of checks.
"""
