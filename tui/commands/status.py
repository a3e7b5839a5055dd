"""The exit statuses of the commands."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""A check or a run failed."""
PROBLEM = 2
"""A problem with what was given or with the machine; the message says how to fix it."""
STOPPED = 3
"""The run that was waited for was stopped."""
LEFT_GOING = 4
"""The demo's app was left while the run goes on."""
FAULT = 70
"""A fault of finetui's own."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Whoever read our output went away."""
