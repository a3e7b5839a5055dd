"""The processes of a run: which they are, who holds the lock, how they leave the terminal and talk to each other."""
