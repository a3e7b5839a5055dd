"""What rows mean: from the columns of any source to contents that can be learnt.

`reading_of` decides once, from the first rows and what a person said, how a source is understood; a `Recogniser` then
turns each row into a content or raises Unusable with the reason. `recognise` does one row by its fields alone.
"""

from engine.data.shapes.parts import KIND_WORDS, Part, goes_with, objective_for, roles_of
from engine.data.shapes.reading import UnclearColumns, how_to_say, reading_of
from engine.data.shapes.reading_value import Reading
from engine.data.shapes.recogniser import Recogniser, recognise

__all__ = [
    "KIND_WORDS",
    "Part",
    "Reading",
    "Recogniser",
    "UnclearColumns",
    "goes_with",
    "how_to_say",
    "objective_for",
    "reading_of",
    "recognise",
    "roles_of",
]
