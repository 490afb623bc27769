"""Lint: rules that find faults in hand-written case documents. Each rule is based on faults in real documents."""
