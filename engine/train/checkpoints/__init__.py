"""Checkpoints: written whole or not at all, verified, and read back to the bit."""

from engine.train.checkpoints.finite import NotFiniteError
from engine.train.checkpoints.progress import Progress
from engine.train.checkpoints.reading import load_checkpoint, load_trainable
from engine.train.checkpoints.writing import Saved, checkpoint_bytes, save_checkpoint

__all__ = [
    "NotFiniteError",
    "Progress",
    "Saved",
    "checkpoint_bytes",
    "load_checkpoint",
    "load_trainable",
    "save_checkpoint",
]
