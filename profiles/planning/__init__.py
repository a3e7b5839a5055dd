"""From a model, a machine and data to the setups worth offering: budget, search, choice, words."""
