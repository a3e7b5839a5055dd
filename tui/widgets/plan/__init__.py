"""The parts of the Plan screen and of New run's plan step."""
