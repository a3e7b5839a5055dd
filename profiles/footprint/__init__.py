"""What training keeps in memory, counted op by op on a tape, and what a process takes besides."""
