"""Public facts as TOML files: models, GPUs, recipes."""
