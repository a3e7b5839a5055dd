"""The objective that a run's spec asks for."""

from __future__ import annotations

from typing import Any

from engine.data.contents import Kind
from engine.data.dataset import Dataset
from engine.data.examples import Examples
from engine.methods.heads import LANGUAGE, NO_HEAD, Head
from engine.objectives.base import Objective
from engine.objectives.classification import Classification
from engine.objectives.embedding import Embedding
from engine.objectives.kto import Kto
from engine.objectives.next_token import NextToken
from engine.objectives.preference import Dpo, Orpo, Simpo
from engine.spec import ObjectiveSection, RunSpec
from engine.train.forward import Forward
from profiles.problem import Problem

_LEARNT_FROM: dict[str, tuple[Kind, ...]] = {
    "next_token": ("conversation", "text"),
    "dpo": ("preference",),
    "orpo": ("preference",),
    "simpo": ("preference",),
    "kto": ("feedback",),
    "classification": ("labelled",),
    "embedding": ("similar",),
}
_KIND_WORDS: dict[Kind, str] = {
    "conversation": "conversations",
    "text": "plain text",
    "preference": "pairs of a better and a worse answer",
    "feedback": "answers with a thumb up or down",
    "labelled": "texts with labels",
    "similar": "pairs of similar texts",
}


def check_kind(spec: RunSpec, dataset: Dataset) -> None:
    """Raises Problem when the rows are not what the objective learns from, or too few classes are among them."""
    objective = spec.objective.kind
    if dataset.kind not in _LEARNT_FROM[objective]:
        fitting = next(name for name, kinds in _LEARNT_FROM.items() if dataset.kind in kinds)
        wanted = " or ".join(_KIND_WORDS[kind] for kind in _LEARNT_FROM[objective])
        raise Problem(
            "objective.kind",
            f"{objective} learns from {wanted}, but the data is {_KIND_WORDS[dataset.kind]}",
            f'Set objective.kind to "{fitting}", or give other data.',
        )
    least = 1 if dataset.several_labels else 2  # one of several classes may hold or not
    if objective == "classification" and len(dataset.labels) < least:
        found = "only one class" if dataset.labels else "no class at all"
        raise Problem("data.train", f"has {found}, so there is nothing to tell apart", "Give rows of other classes.")


def head_of(spec: RunSpec, dataset: Dataset, padding_id: int | None) -> Head:
    """What the model needs on top of its decoder for the spec's objective."""
    if spec.objective.kind == "classification":
        return Head("classes", dataset.labels, dataset.several_labels, padding_id)
    return NO_HEAD if spec.objective.kind == "embedding" else LANGUAGE


def make_objective(
    settings: ObjectiveSection,
    forward: Forward,
    train: Examples,
    held_out: Examples,
    *,
    classes: int,
    several: bool,
    seed: int,
    step_units: int,
) -> Objective[Any]:
    """The objective that `settings` ask for over `forward`'s model.

    `held_out` is what is measured on; `classes` and `several` are how many the texts have and whether a text may have
    more than one; `step_units` is how many units a step has on average.
    """
    match settings.kind:
        case "next_token":
            return NextToken(forward)
        case "dpo":
            return Dpo(forward, train, held_out, beta=settings.beta)
        case "orpo":
            return Orpo(forward, train, held_out, beta=settings.beta)
        case "simpo":
            return Simpo(forward, train, held_out, beta=settings.beta, margin=settings.margin)
        case "kto":
            return Kto(
                forward,
                train,
                held_out,
                beta=settings.beta,
                liked_weight=settings.liked_weight,
                disliked_weight=settings.disliked_weight,
                seed=seed,
            )
        case "classification":
            return Classification(forward, classes=classes, several=several)
        case "embedding":
            return Embedding(forward, pooling=settings.pooling, temperature=settings.temperature, step_units=step_units)
