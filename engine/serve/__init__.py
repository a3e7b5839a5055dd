"""Talking with a run's base and tuned model: a light session here, a torch process behind it."""
