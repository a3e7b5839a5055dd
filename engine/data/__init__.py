"""From the files people have to token examples with a loss mask.

read (bytes to rows) -> shapes (rows to conversations or text) -> tokenise (to token ids and targets) ->
dataset (split, counts, what was set aside) -> packing (several examples to a row of fixed length). read,
shapes and preview are light: the app uses them without the libraries of the engine.
"""
