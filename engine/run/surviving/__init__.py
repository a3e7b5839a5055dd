"""Whether a run outlives its person's log-out, and how it is started so that it does: what this machine allows."""
