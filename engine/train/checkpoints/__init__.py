"""Checkpoints: written whole or not at all, verified, and read back to the bit."""
