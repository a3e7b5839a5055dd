"""What `profiles` cannot tell without torch: a model's shapes, a replayed step's memory, a device's measured rates.

Each file here that a person's side imports is light and starts a child process for the heavy part; what the child found
is kept in the cache.
"""
