"""What a run hands over, in the formats other tools load: a PEFT adapter, or a transformers model."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.run.directory import RunDirectory, sync, sync_tree
from engine.train.setup import Setup
from profiles.problem import Problem


def write_outputs(setup: Setup, run: RunDirectory) -> tuple[str, Path]:
    """Write the tuned adapter, or the whole tuned model, with tokenizer and chat template. Returns (name, folder).

    The folder appears complete or not at all. Raises Problem when it cannot be written.
    """
    full = setup.spec.method.kind == "full"
    name = "model" if full else "adapter"
    final, staging = run.outputs / name, run.outputs / f".staging-{name}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        if full:
            _save_model(setup, staging)
        else:
            # False keeps peft from looking the base model up to learn whether its vocabulary was resized.
            setup.model.save_pretrained(staging, save_embedding_layers=False)
        setup.tokenizer.save_pretrained(staging)
        if final.exists():
            shutil.rmtree(final)
        sync_tree(staging)
        staging.rename(final)
        sync(run.outputs)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise Problem(str(final), f"cannot be written: {error.strerror or error}", "Free disk space there.") from error
    return name, final


def _save_model(setup: Setup, folder: Path) -> None:
    """The model in the precision its base was published in, ending answers at the tokens it was trained to end with."""
    model = setup.model
    model.generation_config.eos_token_id = setup.stop_tokens
    trained_in, published = model.dtype, setup.published_dtype
    if published == trained_in:
        model.save_pretrained(folder)
        return
    # Rounded in place and back, since a second copy of a large model may not fit. What the run measures after this
    # is therefore the model as it is handed over.
    model.to(published)
    model.save_pretrained(folder)
    model.to(trained_in)
