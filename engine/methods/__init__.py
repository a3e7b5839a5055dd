"""How a model becomes trainable: loading a base, attaching adapters, quantising. Imports torch: worker side only."""
