"""Runs in a home of their own, with a fake worker in place of the trainer."""

from fake_runs import home, script, spec, unsealed  # noqa: F401
