"""Chat templates of families of models, for models that have none."""
