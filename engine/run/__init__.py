"""The contract between a person's side and the machine's side: the run folder and what is said through it. No torch."""
