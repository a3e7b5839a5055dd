"""The bytes that a run will write: its checkpoints, what it hands over, its journal. A count, as of its memory."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.geometry import Geometry
from profiles.memory import optimizer_bytes, trainable_elements
from profiles.settings import REFERRING, Settings

_FP32 = 4
_KIB = 1 << 10
# The state of the random generators (torch's on the host and on a GPU), the manifest, folders; and of each tensor its
# entry in a header, up to four times with the optimizer's, and bitsandbytes' two tables of 8-bit codes.
_CHECKPOINT_EXTRAS_BYTES = 64 * _KIB
_TENSOR_EXTRAS_BYTES = 1 * _KIB
_CODES_BYTES = 2 * 256 * 4
# A card, configurations, the chat template.
_OUTPUT_EXTRAS_BYTES = 32 * _KIB
REFERENCE_BYTES = 16
"""dpo, kto: of each row its position and two log-probabilities of the untouched base."""
# A step's line in the journal, measured with its totals; and what else a run tells: readings of the devices where they
# change, the log, samples and answers.
_STEP_BYTES = 360
_TELLING_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """Sizes in bytes. `checkpoints` is how many there are at once at most, one that is being written included."""

    checkpoint_bytes: int
    checkpoints: int
    output_bytes: int
    journal_bytes: int
    references_bytes: int = 0
    """What the untouched base makes of the rows, where the objective compares with it."""

    @property
    def total_bytes(self) -> int:
        """What the run's folder holds at its fullest."""
        return self.checkpoint_bytes * self.checkpoints + self.output_bytes + self.journal_bytes + self.references_bytes


def plan_disk(
    geometry: Geometry,
    settings: Settings,
    *,
    steps: int,
    save_every: int,
    keep: int,
    keeps_best: bool,
    tokenizer_bytes: int = 0,
    rows: int = 0,
) -> DiskPlan:
    """The disk that `steps` steps take, saved every `save_every` (0: at the end only), with the newest `keep`
    checkpoints kept and with `keeps_best` the best one beside them. `rows` are all that are learnt from or measured
    on."""
    elements = trainable_elements(geometry, settings)
    checkpoint = sum(elements) * _FP32 + optimizer_bytes(geometry, settings)
    extras = len(elements) * (_TENSOR_EXTRAS_BYTES + ("8bit" in settings.optimizer) * _CODES_BYTES)
    adapts = settings.method in ("lora", "qlora")
    output = sum(elements) * _FP32 if adapts else geometry.weight_bytes
    return DiskPlan(
        checkpoint_bytes=checkpoint + extras + _CHECKPOINT_EXTRAS_BYTES,
        checkpoints=min(saves_of(steps, save_every), keep + keeps_best + 1),
        output_bytes=output + len(elements) * _TENSOR_EXTRAS_BYTES + _OUTPUT_EXTRAS_BYTES + tokenizer_bytes,
        journal_bytes=steps * _STEP_BYTES + _TELLING_BYTES,
        references_bytes=rows * REFERENCE_BYTES if settings.objective in REFERRING else 0,
    )


def saves_of(steps: int, save_every: int) -> int:
    """How often a run of `steps` steps is saved: every `save_every` steps, and at its end."""
    if not save_every:
        return 1
    return steps // save_every + (steps % save_every > 0)
