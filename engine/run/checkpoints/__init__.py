"""A run's checkpoints as files: which there are, whether each is as it was saved, which stay. None is loaded here."""
