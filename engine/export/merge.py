"""An adapter merged into its base, written as a plain transformers model in the base's precision."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from engine.export.copying import TOKENIZER_FILES, Progress, copy_files, files_in
from engine.methods.heads import LANGUAGE, Head
from engine.methods.loading import CLASS_HEAD, attach_adapter, load_base, load_tokenizer
from engine.serve.prompts import stop_tokens
from profiles.bounded_files import read_json
from profiles.problem import Problem
from profiles.shapes.model_folder import SIDE_LIMIT_BYTES

WATCH_SECONDS = 0.25
DTYPES = {"F64": torch.float32, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def merge(
    base_path: Path, adapter_path: Path, into: Path, weight_bytes: int, progress: Progress, head: Head = LANGUAGE
) -> None:
    """Write base + adapter, tokenizer and chat template into the folder `into`, on the CPU; `head` is what the adapter
    was trained under.

    The base is read unquantised, whatever the adapter was trained over. `weight_bytes` is what the weights
    will take, for `progress`. Raises Problem when one of the two cannot be loaded or the sum is not finite.
    """
    progress("reading the base model", 0, 0)
    dtype = weights_dtype(base_path)
    base = load_base(base_path, dtype=dtype, device="cpu", head=head)
    adapted = attach_adapter(base, adapter_path)
    _untie_where_adapted(base, adapted)
    progress("merging the adapter", 0, 0)
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise Problem(str(adapter_path), f"cannot be merged: {error}", "Train it again; its loss diverged.") from error
    if head.kind == "classes":
        merged.get_submodule(CLASS_HEAD).to(dtype)  # it is trained in float32
    try:
        with _watched(into, weight_bytes, progress):
            merged.save_pretrained(into)
    except SafetensorError as error:  # a full disk, mostly
        raise Problem(str(into.parent), f"cannot be written: {error}", "Give a folder on a disk with room.") from error
    tokenizer_path = adapter_path if files_in(adapter_path, TOKENIZER_FILES) else base_path
    copy_files(files_in(tokenizer_path, TOKENIZER_FILES), into, lambda detail, done, total: None)
    if head.kind == "language":
        _write_generation_config(base_path, stop_tokens(load_tokenizer(into), base.generation_config), into)


def weights_dtype(model_path: Path) -> torch.dtype:
    """The precision of most of a model's weights, by the headers of its safetensors files. Raises Problem."""
    counts: dict[str, int] = {}
    for path in files_in(model_path, ("*.safetensors",)):
        try:
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118  (it is not a mapping)
                    tensor = tensors.get_slice(name)
                    size = torch.Size(tensor.get_shape()).numel()
                    counts[tensor.get_dtype()] = counts.get(tensor.get_dtype(), 0) + size
        except (SafetensorError, OSError) as error:
            raise Problem(str(path), f"cannot be read: {error}", "Copy the model's files again.") from error
    if not counts:
        raise Problem(str(model_path), "has no safetensors weights", "Put the base model back where it was.")
    most = max(counts, key=lambda name: counts[name])
    if most not in DTYPES:
        raise Problem(str(model_path), f"has {most} weights", "Merge needs a base in F32, F16 or BF16.")
    return DTYPES[most]


def _write_generation_config(base_path: Path, stops: frozenset[int], into: Path) -> None:
    """The base's own settings, but ending at what ended the answers it learned from, which may be another token."""
    name = "generation_config.json"
    settings = read_json(base_path / name, SIDE_LIMIT_BYTES) if (base_path / name).is_file() else {}
    (into / name).write_text(json.dumps(settings | {"eos_token_id": sorted(stops)}, indent=2) + "\n")


def _untie_where_adapted(base: Any, adapted: Any) -> None:
    """Give head and embedding weights of their own when they share one and the adapter changes either."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    layers = [each for each in (head, embedding) if isinstance(each, BaseTunerLayer)]
    if not layers or head is None or head.weight is not embedding.weight:
        return
    layer = layers[0].get_base_layer()
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    base.config.get_text_config().tie_word_embeddings = False
    base.config.tie_word_embeddings = False


class _watched:
    """Tells a few times a second how many of `total` bytes lie in a folder that a library writes into."""

    def __init__(self, folder: Path, total: int, progress: Progress):
        self._folder, self._total, self._progress = folder, total, progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            written = sum(path.stat().st_size for path in files_in(self._folder))
            self._progress("writing the merged model", min(written, self._total), self._total)
            if self._over.wait(WATCH_SECONDS):
                return
