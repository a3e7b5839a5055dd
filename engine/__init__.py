"""Everything that works without a terminal: the run folder, data, training, evaluation, export, chat."""
