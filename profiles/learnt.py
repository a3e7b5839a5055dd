"""What measured runs teach the estimates: rows of what was predicted and what was measured, and the correction.

A row has these columns; in profiles/catalogue/measured/*.csv an empty cell stands for what is not known:

    device                      the GPU's name as the driver says it, or "cpu"
    model                       model_key(geometry): its type and sizes, whatever the folder is called
    method, compute_dtype, attention, sequence_length, micro_batch, gradient_accumulation, rank, dropout, targets,
    trained_layers, double_quantisation, optimizer, gradient_checkpointing, offload_checkpoints, loss_chunk,
    objective, answers,
    max_new_tokens              the fields of profiles.settings.Settings; of these only method is read back
    formula                     FORMULA when the prediction was made
    predicted_allocated_bytes   tensors at the peak, as predicted for the phases and tokens that were measured
    predicted_process_bytes     the same with the context
    allocated_bytes             tensors at the peak (torch's max_memory_allocated; not known on a CPU)
    reserved_bytes              what torch's allocator held (not known on a CPU)
    process_bytes               what the process took on the device; after an out-of-memory, what it could not exceed
    outcome                     "ok", or "out of memory"

Rows correct two numbers of an estimate and nothing else: the context, by the ratio of the measured to the predicted
one, and the error share, by what is left after that. Context here is all that the process takes besides the predicted
tensors. Rows of the same device, model and method come first; there the tensors' own error counts as context, since
only the sum has to fit. With fewer than two of them those of the device stand in, each compared with its own tensors.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from statistics import median
from typing import Any

from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.memory import MemoryEstimate
from profiles.settings import Settings

FORMULA = 3
"""Raised whenever profiles.memory predicts other numbers, so that rows of former formulas are passed over."""

OUT_OF_MEMORY = "out of memory"

NEWEST_ROWS = 32
"""Rows of a group that count, the newest first: libraries and drivers change."""

# A row says little of a run a hundred times its size, whose context is another mixture of fixed and growing parts.
_NEAR = 4.0
# Below this a measurement of a whole process does not repeat itself: pages, other threads, a driver's rounding.
_ERROR_FLOOR = 0.02
_ERROR_CEILING = 0.5
# Rows that an estimate's own band counts for: with as many measured ones the band is half old, half measured.
_PRIOR_ROWS = 4
# The context is never lowered below this share of the prediction, nor raised above so many times.
_LEAST_RATIO, _MOST_RATIO = 0.5, 4.0
_LEAST_DEVICE_ROWS = 3
_MOST_BOUND = 1.5


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One comparison, in bytes. With `bound` the process ran out of memory: it wanted more than `process_bytes`."""

    device: str
    model: str
    method: str
    predicted_allocated_bytes: int
    predicted_process_bytes: int
    allocated_bytes: int | None
    process_bytes: int
    bound: bool = False

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> MeasuredRow | None:
        """A row as written above; None for one of another formula or outcome, or one that makes no sense."""
        try:
            found = cls(
                str(row["device"]),
                str(row["model"]),
                str(row["method"]),
                int(row["predicted_allocated_bytes"]),
                int(row["predicted_process_bytes"]),
                int(row["allocated_bytes"]) if row.get("allocated_bytes") not in (None, "") else None,
                int(row["process_bytes"]),
                row["outcome"] == OUT_OF_MEMORY,
            )
            usable = int(row["formula"]) == FORMULA and row["outcome"] in ("ok", OUT_OF_MEMORY)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        sensible = (
            0 < found.predicted_allocated_bytes < found.predicted_process_bytes
            and found.process_bytes > 0
            and (found.allocated_bytes is None or 0 < found.allocated_bytes <= found.process_bytes)
            # A run that had far more than it should need ran out for another reason: others took it, or a limit.
            and not (found.bound and found.process_bytes > _MOST_BOUND * found.predicted_process_bytes)
        )
        return found if usable and sensible else None

    def ratio(self, *, own_tensors: bool) -> float:
        """Measured over predicted context; with `own_tensors` what was measured of the tensors is left out of it."""
        tensors = self.predicted_allocated_bytes
        if own_tensors and self.allocated_bytes is not None:
            tensors = self.allocated_bytes
        return (self.process_bytes - tensors) / (self.predicted_process_bytes - self.predicted_allocated_bytes)


@dataclass(frozen=True, slots=True)
class _Correction:
    ratio: float
    """What the context is multiplied by."""
    spread: float
    """Largest share of the process by which a row lies off after that."""
    rows: int


class Learnt:
    """The rows, by device, model and method. Reading is cheap enough for every point of a search."""

    def __init__(self, rows: Iterable[MeasuredRow]):
        self._groups: dict[tuple[str, ...], list[MeasuredRow]] = {}
        for row in rows:
            for key in ((row.device, row.model, row.method), (row.device,)):
                self._groups.setdefault(key, []).append(row)
        self._keys: dict[int, tuple[Geometry, str]] = {}
        self._corrections: dict[tuple[tuple[str, ...], int], _Correction | None] = {}

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Learnt:
        """From rows as they are written, oldest first; those that cannot be used are passed over."""
        return cls(row for each in rows if (row := MeasuredRow.read(each)) is not None)

    def adjust(
        self, estimate: MemoryEstimate, geometry: Geometry, settings: Settings, device_name: str
    ) -> MemoryEstimate:
        """`estimate` as the rows of this machine correct it; the same object where they say nothing."""
        if (device_name,) not in self._groups:
            return estimate
        correction = self._correction((device_name, self._key(geometry), settings.method), estimate.peak_bytes)
        if correction is None:
            return estimate
        context = round(estimate.components["context"] * correction.ratio)
        weight = correction.rows / (correction.rows + _PRIOR_ROWS)
        # Wider at once, narrower only as rows add up.
        blended = max(correction.spread, (1 - weight) * estimate.error_share + weight * correction.spread)
        error_share = min(_ERROR_CEILING, max(_ERROR_FLOOR, blended))
        count = "one measured run" if correction.rows == 1 else f"{correction.rows} measured runs"
        return dataclasses.replace(
            estimate,
            components={**estimate.components, "context": context},
            error_share=error_share,
            reasons=(*estimate.reasons, f"The context and the band follow {count} on this device."),
        )

    def _key(self, geometry: Geometry) -> str:
        # By identity: a search prices one geometry thousands of times, and hashing one walks all its tensors.
        known = self._keys.get(id(geometry))
        if known is None or known[0] is not geometry:
            known = self._keys[id(geometry)] = (geometry, model_key(geometry))
        return known[1]

    def _correction(self, group: tuple[str, ...], peak_bytes: int) -> _Correction | None:
        size = peak_bytes.bit_length()
        if (group, size) not in self._corrections:
            self._corrections[group, size] = self._work_out(group, 1 << size)
        return self._corrections[group, size]

    def _work_out(self, group: tuple[str, ...], peak_bytes: int) -> _Correction | None:
        for key, own_tensors, least in ((group, False, 1), (group[:1], True, _LEAST_DEVICE_ROWS)):
            rows = [
                row
                for row in self._groups.get(key, ())
                if 1 / _NEAR <= row.predicted_process_bytes / peak_bytes <= _NEAR
            ][-NEWEST_ROWS:]
            if len(rows) >= least:
                return _correction_of(rows, own_tensors)
        return None


def model_key(geometry: Geometry) -> str:
    """A model by its type and sizes, the same wherever its folder lies: "llama-32x4096x14336-v128256"."""
    config = geometry.config
    sizes = f"{geometry.layers}x{geometry.hidden_size}x{geometry.intermediate_size}-v{geometry.vocab_size}"
    experts = f"-e{config.experts}" if config.experts else ""
    return f"{geometry.model_type}-{sizes}{experts}"


def device_name(hardware: Hardware) -> str:
    """What rows call the device that a run on `hardware` trains on."""
    return hardware.gpus[0].name if hardware.gpus else "cpu"


@cache
def shipped_rows() -> tuple[dict[str, str], ...]:
    """The rows that come with finetui: profiles/catalogue/measured/*.csv."""
    folder = resources.files("profiles") / "catalogue" / "measured"
    if not folder.is_dir():
        return ()
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".csv")), key=lambda file: file.name)
    return tuple(row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def _correction_of(rows: list[MeasuredRow], own_tensors: bool) -> _Correction:
    """The median ratio of rows that finished, raised to what any that ran out of memory needed, and what it leaves."""
    finished = [row.ratio(own_tensors=own_tensors) for row in rows if not row.bound]
    ratio = median(finished) if finished else 1.0
    if ratio < 1:
        # A lower context is believed by as much as there are rows for it; a higher one at once.
        ratio = 1 - (1 - ratio) * len(finished) / (len(finished) + _PRIOR_ROWS / 2)
    needed = [row.ratio(own_tensors=False) for row in rows if row.bound]
    ratio = min(_MOST_RATIO, max(_LEAST_RATIO, ratio, *needed))
    offs = sorted(_off(row, ratio) for row in rows)
    # All but the worst tenth, and at least all of nine.
    return _Correction(ratio, offs[min(len(offs) - 1, int(0.9 * len(offs)))], len(rows))


def _off(row: MeasuredRow, ratio: float) -> float:
    """Share of the corrected prediction by which the row's process lies off it; a bound only when it lies above."""
    context = row.predicted_process_bytes - row.predicted_allocated_bytes
    corrected = row.predicted_allocated_bytes + ratio * context
    off = row.process_bytes / corrected - 1
    return max(0.0, off) if row.bound else abs(off)
