"""How runs end: each cause told apart, with what to do about it, and what the engine tries by itself first."""
