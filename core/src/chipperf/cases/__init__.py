"""The cases: standard models with their data, metric and hyperparameters."""
