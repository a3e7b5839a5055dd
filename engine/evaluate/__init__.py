"""What a model is worth: held-out loss and answers. Imports torch: worker side only."""
