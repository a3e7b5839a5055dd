"""What a run hands over, in the formats other tools load: a PEFT adapter, or a transformers model."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors import SafetensorError

from engine.export.sentence_files import write_sentence_files
from engine.methods.heads import write_classes
from engine.run.directory import RunDirectory
from engine.run.disk_room import tokenizer_bytes
from engine.run.durable_files import sync, sync_tree
from engine.train.setup import Setup
from profiles.problem import Problem

# A larger tensor still makes a shard of its own.
_SHARD_BYTES = 2 << 30
# Headers, configurations, a card.
_EXTRAS_BYTES = 1 << 16


def write_outputs(setup: Setup, run: RunDirectory) -> tuple[str, Path]:
    """Write the tuned adapter, or the whole tuned model, with tokenizer and chat template. Returns (name, folder).

    The folder appears complete or not at all. Raises Problem when it cannot be written.
    """
    adapts = setup.spec.method.adapts
    name = "adapter" if adapts else "model"
    final, staging = run.outputs / name, run.outputs / f".staging-{name}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        if adapts:
            # False keeps peft from looking the base model up to learn whether its vocabulary was resized.
            setup.model.save_pretrained(staging, save_embedding_layers=False)
        else:
            _save_model(setup, staging)
        setup.tokenizer.save_pretrained(staging)
        _describe(setup, staging)
        if final.exists():
            shutil.rmtree(final)
        sync_tree(staging)
        staging.rename(final)
        sync(run.outputs)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise Problem(str(final), f"cannot be written: {reason}", "Free disk space there.") from error
    return name, final


def output_bytes(setup: Setup) -> int:
    """Bytes that `write_outputs` writes: the adapter, or the model in its published precision, and the tokenizer."""
    if setup.spec.method.adapts:
        weights = sum(parameter.nbytes for parameter in setup.parameters.values())
    else:
        published = setup.published_dtype.itemsize
        weights = sum(parameter.numel() * published for parameter in setup.model.parameters())
    return weights + _EXTRAS_BYTES + tokenizer_bytes(setup.spec.model.path)


def _describe(setup: Setup, folder: Path) -> None:
    """What other tools have to know of a model that does not write."""
    if setup.head.kind == "classes" and setup.spec.method.adapts:
        write_classes(setup.head, folder)
    if setup.head.kind == "none":
        write_sentence_files(
            folder,
            width=setup.forward.base.config.get_text_config().hidden_size,
            pooling=setup.spec.objective.pooling,
            longest_tokens=setup.spec.data.sequence_length,
        )


def _save_model(setup: Setup, folder: Path) -> None:
    """The model in the precision its base was published in, ending answers at the tokens it was trained to end with."""
    model = setup.model
    if setup.head.kind == "language":
        model.generation_config.eos_token_id = setup.stop_tokens
    # Rounded in place and back, since a second copy of a large model may not fit. What the run measures after this
    # is therefore the model as it is handed over. Parameters only: rotary tables lose by rounding, and are not saved.
    trained_in = {parameter: parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    for parameter in trained_in:
        parameter.data = parameter.data.to(setup.published_dtype)
    try:
        # A shard is copied to the host whole before it is written.
        model.save_pretrained(folder, max_shard_size=_SHARD_BYTES)
    finally:
        for parameter, dtype in trained_in.items():
            parameter.data = parameter.data.to(dtype)
