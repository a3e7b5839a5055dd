"""What can be shown of a run afterwards: where it came from, what was done with it by whom, and whether that holds."""
