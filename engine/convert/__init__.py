"""Weights that lie in pickles, made into safetensors: opened once, after consent, by a sealed process that takes
nothing but numbers from them."""
