"""From the files people have to token examples with a loss mask, without the libraries of models.

files (bytes to rows) -> shapes (rows to contents: conversations, text, preferences, ...) -> tokens (contents to token
ids and answers) -> prepare (all rows of a run, on all cores, kept on disk) -> dataset (what training takes from it) ->
mixing and packing (which examples an epoch has, and in which rows). Beside them preview (a first look), quality and
personal (what a report finds in the rows).
"""
