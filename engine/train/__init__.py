"""The training process: its loop, its batches, its checkpoints. Imports torch: worker side only."""
