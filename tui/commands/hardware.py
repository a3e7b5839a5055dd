"""`finetui hardware`: what this machine has, who uses it, and how fast it is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from profiles.hardware import Disk, Gpu, Hardware, probe
from profiles.machine.gpu_catalogue import facts_for
from profiles.speed import Rates, rates_of
from tui.commands import status
from tui.commands.output import Output
from tui.format import bytes_of_text, bytes_text, counted, share_text

_DTYPES = ("bf16", "fp16", "fp32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--measure", action="store_true", help="measure the training device and the disk now")
    parser.add_argument("--json", action="store_true", help="print JSON (bytes, °C, watts as numbers)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    from engine.fit.rates import cached_rates, measure_rates
    from engine.fit.write_speed import measure_write_speed, with_cached_write_speed
    from engine.run.directory import runs_root

    hardware = probe(runs_root())
    if arguments.measure:
        measure_write_speed(hardware.disk)
        measure_rates(hardware)
    hardware = with_cached_write_speed(hardware)
    measured = cached_rates(hardware)
    if arguments.json:
        output.json(hardware.as_dict() | {"rates": _rates_dict(rates_of(hardware, measured))})
        return status.DONE
    output.lines(_host_lines(hardware))
    for gpu in hardware.gpus:
        output.lines(_gpu_lines(gpu))
    if not hardware.gpus:
        output.line("GPU    none that can be used; training runs on the CPU")
    output.line(_speed_line(hardware, measured))
    output.line(_disk_line(hardware.disk))
    for note in hardware.notes:
        output.line(f"note   {note}")
    return status.DONE


def _host_lines(hardware: Hardware) -> list[str]:
    cpu, ram = hardware.cpu, hardware.ram
    bf16 = "bf16 native" if cpu.native_bf16 else "no native bf16, so fp32"
    return [
        f"host   {hardware.host}",
        f"CPU    {cpu.name} · {counted(cpu.physical_cores, 'core')} · {bf16}",
        f"RAM    {bytes_of_text(ram.total_bytes - ram.available_bytes, ram.total_bytes)} used · "
        f"{bytes_text(ram.available_bytes)} free",
    ]


def _gpu_lines(gpu: Gpu) -> list[str]:
    """The GPU now, what it can do, what its maker says of it, and who uses it."""
    parts = [f"GPU {gpu.index}  {gpu.name}", f"{bytes_of_text(gpu.used_bytes, gpu.total_bytes)} used"]
    parts += ["shared with the CPU"] if gpu.unified else []
    parts += [f"{gpu.celsius:.0f} °C"] if gpu.celsius is not None else []
    parts += [f"{gpu.watts:.0f} W"] if gpu.watts is not None else []
    parts += [f"{share_text(round(gpu.share, 2))} busy"] if gpu.share is not None else []
    return [
        " · ".join(parts),
        f"       {_capabilities(gpu)}",
        f"       {_published(gpu.name)}",
        *(
            f"       {process.user}: {process.command} {bytes_text(process.bytes)} (pid {process.pid})"
            for process in gpu.processes
        ),
    ]


def _capabilities(gpu: Gpu) -> str:
    if gpu.capability is None:
        return "compute capability not told by the driver, so fp16"
    can = {"bf16": gpu.native_bf16, "fp8": gpu.fp8, "flash attention": gpu.flash_attention, "int8": gpu.int8}
    has = [name for name, able in can.items() if able]
    lacks = [name for name, able in can.items() if not able]
    texts = [f"compute capability {gpu.capability[0]}.{gpu.capability[1]}"]
    texts += [f"has {', '.join(has)}"] if has else []
    texts += [f"no {', '.join(lacks)}"] if lacks else []
    return " · ".join(texts)


def _published(name: str) -> str:
    facts = facts_for(name)
    if facts is None:
        return "not in the catalogue of cards: speeds are guessed until they are measured"
    rates = {"bf16": facts.bf16_flops, "fp16": facts.fp16_flops, "fp32": facts.fp32_flops}
    flops = ", ".join(f"{dtype} {rates[dtype] / 1e12:.0f}" for dtype in _DTYPES if rates[dtype] >= 1e12)
    return f"published: {flops} TFLOP/s dense · {facts.bandwidth_bytes_per_second / 1e9:,.0f} GB/s"


def _speed_line(hardware: Hardware, measured: Mapping[str, Any] | None) -> str:
    """The rates of large products and of memory that predictions use, and where they come from."""
    rates = rates_of(hardware, measured)
    known = {dtype: rates.matmul_flops[dtype] for dtype in _DTYPES if dtype in rates.matmul_flops}
    unit, size = ("TFLOP/s", 1e12) if max(known.values()) >= 10e12 else ("GFLOP/s", 1e9)
    flops = ", ".join(f"{dtype} {each / size:,.0f}" for dtype, each in known.items())
    learnt = ", corrected by earlier runs" if rates.corrections else ""
    return f"speed  {flops} {unit} · {rates.bandwidth_bytes_per_second / 1e9:,.0f} GB/s · {rates.source}{learnt}"


def _rates_dict(rates: Rates) -> dict[str, Any]:
    return {
        "matmul_flops": dict(rates.matmul_flops),
        "bandwidth_bytes_per_second": rates.bandwidth_bytes_per_second,
        "source": rates.source,
        "error_share": rates.error_share,
    }


def _disk_line(disk: Disk) -> str:
    rate = disk.write_bytes_per_second
    written = f" · writes {bytes_text(rate)}/s" if rate is not None else ""
    return f"disk   {bytes_text(disk.free_bytes)} free of {bytes_text(disk.total_bytes)} at {disk.path}{written}"
