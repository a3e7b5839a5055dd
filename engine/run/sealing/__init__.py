"""How a run's seal is set up, tried before each attempt, and watched while its worker lives."""
