"""Runs that wait: for memory, for their turn, for another run; and what those that were started were promised."""
