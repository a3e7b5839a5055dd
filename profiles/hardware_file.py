"""Machines that are not this one: read from a file, the same with another GPU, or with a card of the catalogue."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiles.bounded_files import read_json
from profiles.hardware import HARDWARE_VERSION, Cpu, Disk, Gpu, GpuProcess, Hardware, Ram
from profiles.machine.gpu_catalogue import GpuFacts, all_gpus, facts_for, typical_gpu
from profiles.problem import Problem, printable

_LIMIT_BYTES = 1 << 20
_SIZE_LIMIT = 1 << 60
_FIX = "Write the file with `finetui hardware --json` on that machine."
# The machine around a card that is only planned for: what a workstation has.
_PLANNED_CORES = 8
_PLANNED_RAM_BYTES = 64 << 30
_PLANNED_DISK_BYTES = 1 << 40


def load_hardware(path: Path) -> Hardware:
    """The machine that `finetui hardware --json` printed into `path`. Raises Problem naming the first faulty field.

    A GPU needs no more than its name where the catalogue has it.
    """
    values = read_json(path, _LIMIT_BYTES)
    file = _Fields(path, "", values)
    version = file.size("version")
    if version > HARDWARE_VERSION:
        raise Problem(
            f"{path}, field version",
            f"is {version:,}; this finetui reads up to {HARDWARE_VERSION}",
            "Update finetui here, or write the file with the same version.",
        )
    cpu, ram, disk = file.part("cpu"), file.part("ram"), file.part("disk")
    total_ram = ram.size("total_bytes")
    cores = cpu.size("physical_cores")
    total_disk = disk.size("total_bytes")
    return Hardware(
        host=file.text("host", default=path.stem),
        cpu=Cpu(
            name=cpu.text("name", default="CPU"),
            physical_cores=max(1, cores),
            logical_cores=max(1, cpu.size("logical_cores", default=cores)),
            native_bf16=cpu.flag("native_bf16"),
        ),
        ram=Ram(total_ram, ram.size("available_bytes", default=total_ram, most=total_ram)),
        gpus=tuple(_gpu(each, index) for index, each in enumerate(file.parts("gpus"))),
        disk=Disk(
            Path(disk.text("path", default="/")),
            disk.size("free_bytes", most=total_disk),
            total_disk,
            disk.number("write_bytes_per_second"),
        ),
        notes=(f"Read from {printable(path)}: this machine was not looked at.", *file.texts("notes")),
    )


def with_vram(hardware: Hardware, vram_bytes: int) -> Hardware:
    """`hardware` with one GPU of `vram_bytes` that nothing else uses: its first GPU's kind, else an unnamed one."""
    name = f"GPU of {vram_bytes / 2**30:.4g} GiB"
    if hardware.gpus:
        gpu = replace(hardware.gpus[0], total_bytes=vram_bytes, used_bytes=0, processes=(), unified=False)
        note = f"Planned for {vram_bytes / 2**30:.4g} GiB of GPU memory, all of it free; it is as fast as {gpu.name}."
    else:
        facts = typical_gpu(vram_bytes)
        gpu = replace(_planned_gpu(facts), name=name, total_bytes=vram_bytes, unified=False)
        note = f"Planned for a {name}, all of it free, that has bf16 and is as fast as {facts.name}."
    return replace(hardware, gpus=(gpu,), notes=(note,))


def hypothetical(gpu_name: str) -> Hardware:
    """A machine with the card that the catalogue calls `gpu_name` and an ordinary host.

    Raises Problem for a name that is not in the catalogue, with the names that come near.
    """
    facts = facts_for(gpu_name)
    if facts is None:
        short = {_short(each.name).casefold(): _short(each.name) for each in all_gpus()}
        near = difflib.get_close_matches(gpu_name.casefold(), short, n=3, cutoff=0.5)
        named = ", ".join(short[each] for each in near)
        raise Problem(
            f"GPU {printable(gpu_name)}",
            "is not in the catalogue",
            f"Did you mean {named}?" if near else 'Give its memory instead, as in "24GiB".',
        )
    ram_bytes = facts.memory_bytes if facts.unified else max(_PLANNED_RAM_BYTES, 2 * facts.memory_bytes)
    return Hardware(
        host=_short(facts.name),
        cpu=Cpu("CPU", _PLANNED_CORES, 2 * _PLANNED_CORES, native_bf16=False),
        ram=Ram(ram_bytes, ram_bytes),
        gpus=(_planned_gpu(facts),),
        disk=Disk(Path("/"), _PLANNED_DISK_BYTES, _PLANNED_DISK_BYTES),
        notes=(f"Planned for a machine that is not here: one {_short(facts.name)}, all of it free.",),
    )


def _planned_gpu(facts: GpuFacts) -> Gpu:
    return Gpu(
        index=0,
        uuid="",
        name=facts.name,
        total_bytes=facts.memory_bytes,
        used_bytes=0,
        capability=facts.capability,
        native_bf16=bool(facts.bf16_flops),
        celsius=None,
        watts=None,
        share=None,
        processes=(),
        unified=facts.unified,
    )


def _short(name: str) -> str:
    return name.removeprefix("NVIDIA ").removeprefix("GeForce ")


def _gpu(fields: _Fields, index: int) -> Gpu:
    name = fields.text("name")
    facts = facts_for(name)
    total_bytes = fields.size("total_bytes", default=facts.memory_bytes if facts else None)
    capability = fields.capability() or (facts.capability if facts else None)
    return Gpu(
        index=fields.size("index", default=index),
        uuid=fields.text("uuid", default=""),
        name=name,
        total_bytes=total_bytes,
        used_bytes=fields.size("used_bytes", default=0, most=total_bytes),
        capability=capability,
        native_bf16=capability is not None and capability >= (8, 0),
        celsius=fields.number("celsius"),
        watts=fields.number("watts"),
        share=fields.number("share"),
        processes=tuple(_process(each) for each in fields.parts("processes")),
        unified=fields.flag("unified"),
    )


def _process(fields: _Fields) -> GpuProcess:
    used = fields.number("bytes")
    return GpuProcess(
        fields.size("pid"),
        fields.text("user", default="?"),
        fields.text("command", default="?"),
        None if used is None else round(used),
    )


class _Fields:
    """Typed reading of the object at `place` ("gpus[0].") in a hardware file. Every fault is a Problem naming it."""

    def __init__(self, path: Path, place: str, values: Mapping[str, Any]):
        self._path, self._place, self._values = path, place, values

    def part(self, name: str) -> _Fields:
        """The object in field `name`, which must be there."""
        return self._object(name, self._values.get(name))

    def parts(self, name: str) -> list[_Fields]:
        """The objects in the list `name`; none when the field is absent."""
        return [self._object(f"{name}[{index}]", value) for index, value in enumerate(self._list(name))]

    def texts(self, name: str) -> list[str]:
        return [printable(value, 400) for value in self._list(name) if isinstance(value, str)]

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise self._problem(name, value, "a text")
        return printable(value, 200)

    def size(self, name: str, default: int | None = None, most: int = _SIZE_LIMIT) -> int:
        """A whole number from 0 to `most`."""
        value = self._values.get(name, default)
        if type(value) is not int or not 0 <= value <= most:
            raise self._problem(name, value, f"a whole number from 0 to {most:,}")
        return value

    def number(self, name: str) -> float | None:
        """A number that is not negative, or null."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self._problem(name, value, "a number that is not negative, or null")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise self._problem(name, value, "true or false")
        return value

    def capability(self) -> tuple[int, int] | None:
        value = self._values.get("capability")
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2 or not all(type(each) is int and each >= 0 for each in value):
            raise self._problem("capability", value, "a list of two whole numbers, such as [8, 9], or null")
        return value[0], value[1]

    def _list(self, name: str) -> list[Any]:
        value = self._values.get(name, [])
        if not isinstance(value, list):
            raise self._problem(name, value, "a list")
        return value

    def _object(self, name: str, value: Any) -> _Fields:
        if not isinstance(value, dict):
            raise self._problem(name, value, "an object")
        return _Fields(self._path, f"{self._place}{name}.", value)

    def _problem(self, name: str, value: Any, expected: str) -> Problem:
        found = "is missing" if value is None else f"is {printable(repr(value))}"
        return Problem(f"{self._path}, field {self._place}{name}", f"{found}; it should be {expected}", _FIX)
