"""Real runs with one fault each: what comes of them. ``make faults`` prints it as a table."""
