"""What is minimised. Imports torch: worker side only."""
