"""What fits a machine: hardware, model geometry, memory. Imports no torch, no textual, no engine, no tui."""
