"""Taking a run's result elsewhere: the adapter as it is, or merged into the base model."""
