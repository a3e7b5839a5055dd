"""The circumstances under which a run learns now, each a field with a text: what a checkpoint keeps of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.run.circumstances.spec_fields import spec_circumstances
from engine.run.environment import package_version

if TYPE_CHECKING:
    from engine.spec import RunSpec

_PACKAGES = ("torch", "transformers", "accelerate", "finetui")
_OF_ADAPTERS, _OF_FEW_BITS = "peft", "bitsandbytes"


def circumstances_of(
    spec: RunSpec,
    data: Mapping[str, str],
    base: Mapping[str, str],
    device: Mapping[str, str],
    settled: Mapping[str, str],
) -> dict[str, str]:
    """All that decides what a run of `spec` learns, as its person wrote it, what the ladder changed left out. `data` is
    `data_circumstances`, `base` is `base_circumstances`, `device` what was chosen to compute with, and `settled` what
    the process began with, `version_circumstances` among it: other libraries may have been installed since."""
    return {**spec_circumstances(spec), **data, **base, **device, **settled}


def version_circumstances(spec: RunSpec) -> dict[str, str]:
    """The versions, as they are installed now, of the libraries that do the arithmetic of a run of `spec`; imports none
    of them."""
    packages = [*_PACKAGES]
    if spec.method.kind in ("lora", "qlora"):
        packages.append(_OF_ADAPTERS)
    if spec.method.kind == "qlora" or spec.optimizer.kind not in ("adamw", "adafactor"):
        packages.append(_OF_FEW_BITS)
    return {name: package_version(name) or "absent" for name in packages}


def data_circumstances(lineage: Mapping[str, Any]) -> dict[str, str]:
    """What a run's prepared data is (see Dataset.lineage): its files as they are now, and what was made of them."""
    found = {}
    changed = lineage.get("changed_sources", {})
    for number, source in enumerate(lineage["sources"], 1):
        place = "data.held_out" if source["is_held_out"] else f"data.train.{number}"
        found[f"{place} file"] = f"SHA-256 {changed.get(str(number), source['sha256'])}"
    decides = [lineage[name] for name in ("kind", "labels", "train_tokens", "target_tokens")]
    decides += [shard["sha256"] for shard in lineage["shards"]]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    counts = f"{lineage['train_examples']:,} examples to learn, {lineage['held_out_examples']:,} held out"
    found["data as prepared"] = f"SHA-256 {digest}: {counts}"
    found["tokenizer and chat template"] = f"SHA-256 {lineage['tokenizer']['sha256']}"
    return found


def is_of_a_data_file(field: str) -> bool:
    """Whether `field` tells what a data file holds now: a run goes on with what was prepared of it at its start."""
    return field.startswith("data.") and field.endswith(" file")
