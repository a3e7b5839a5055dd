"""`finetui hardware`: what this machine has, and who uses it."""

from __future__ import annotations

import argparse

from profiles.hardware import Gpu, probe
from tui.commands import status
from tui.commands.output import Output
from tui.format import bytes_of_text, bytes_text, counted, share_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON (bytes, °C, watts as numbers)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    from engine.run.directory import runs_root

    hardware = probe(runs_root())
    if arguments.json:
        output.json(hardware.as_dict())
        return status.DONE
    cpu, ram, disk = hardware.cpu, hardware.ram, hardware.disk
    bf16 = "bf16 native" if cpu.native_bf16 else "no native bf16, so fp32"
    output.line(f"host   {hardware.host}")
    output.line(f"CPU    {cpu.name} · {counted(cpu.physical_cores, 'core')} · {bf16}")
    output.line(
        f"RAM    {bytes_of_text(ram.total_bytes - ram.available_bytes, ram.total_bytes)} used · "
        f"{bytes_text(ram.available_bytes)} free"
    )
    for gpu in hardware.gpus:
        output.lines(_gpu_lines(gpu))
    if not hardware.gpus:
        output.line("GPU    none that can be used; training runs on the CPU")
    output.line(f"disk   {bytes_text(disk.free_bytes)} free of {bytes_text(disk.total_bytes)} at {disk.path}")
    for note in hardware.notes:
        output.line(f"note   {note}")
    return status.DONE


def _gpu_lines(gpu: Gpu) -> list[str]:
    parts = [f"GPU {gpu.index}  {gpu.name}", f"{bytes_of_text(gpu.used_bytes, gpu.total_bytes)} used"]
    parts += [f"{gpu.celsius:.0f} °C"] if gpu.celsius is not None else []
    parts += [f"{gpu.watts:.0f} W"] if gpu.watts is not None else []
    parts += [f"{share_text(round(gpu.share, 2))} busy"] if gpu.share is not None else []
    parts += [] if gpu.native_bf16 else ["no native bf16, so fp16"]
    users = [
        f"       {process.user}: {process.command} {bytes_text(process.bytes)} (pid {process.pid})"
        for process in gpu.processes
    ]
    return [" · ".join(parts), *users]
