"""The steps of New run."""
