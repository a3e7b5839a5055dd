"""Switches that keep every library we load from calling out. Set before any of them is imported."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

OFFLINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_XET": "1",
    "WANDB_MODE": "disabled",
    "WANDB_DISABLED": "true",
    "BITSANDBYTES_NOWELCOME": "1",
    # Fast tokenizers warn and switch themselves off when a process forks after using threads.
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "warning",
    # Bars are for a terminal, and nothing of ours that loads these libraries has one.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def set_offline(environment: MutableMapping[str, str] = os.environ) -> None:
    """Write the offline and no-telemetry switches into `environment` (this process's own unless another is given)."""
    environment.update(OFFLINE_ENVIRONMENT)
