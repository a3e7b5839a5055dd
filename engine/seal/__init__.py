"""No byte leaves: what keeps a process of ours from the network and from other people's files, and how that is proven.

A launcher of the standard library alone takes on the layers that the kernel offers and becomes the process that was
meant; the supervisor, outside, has a battery of ways out tried inside and reads in the kernel's files what holds.
"""
