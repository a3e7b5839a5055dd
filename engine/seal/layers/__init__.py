"""What the kernel is asked for, a layer a file. The standard library alone: it runs before anything else does."""
