"""What a person sees: the commands and the Textual app. Imports no torch, not even indirectly."""
