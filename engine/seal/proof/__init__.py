"""What was measured of a seal: ways out that were tried inside it, and what the kernel says of it from outside."""
