"""What the launcher takes on, layer by layer. The standard library alone, and little of that: every process that is
sealed waits for it, and json, typing and dataclasses would take longer than the seal itself."""
