"""The machine on Home: a memory bar for each GPU and for RAM, their gauges, and who uses them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.text import Text

from tui.format import bytes_of_text, bytes_text, share_text
from tui.theme import Look
from tui.widgets.memory_bar import render_memory_bar
from tui.widgets.painted import Painted, cut

if TYPE_CHECKING:
    from profiles.hardware import Gpu
    from tui.snapshots import Machine

LABEL_WIDTH = 6
AMOUNT_WIDTH = 16


class MachinePanel(Painted):
    """One row for each GPU (at most `MOST_GPUS`), one for RAM and disk, one for notes if there are any."""

    MOST_GPUS = 8
    DEFAULT_CSS = "MachinePanel { height: 1; width: 1fr; padding: 0 1; }"

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._machine: Machine | None = None

    def show(self, machine: Machine) -> None:
        self._machine = machine
        self._set_height()
        self.repaint()

    def on_resize(self) -> None:
        self._set_height()
        super().on_resize()

    def _set_height(self) -> None:
        rows = len(self.paint(self.size.width or 80, 0))
        if self.styles.height is None or self.styles.height.value != rows:
            self.styles.height = rows

    def paint(self, width: int, height: int) -> list[Text]:
        if self._machine is None:
            return [Text("reading the hardware" + self.look.ellipsis, style=self.look.dim)]
        return self._rows(width, self.look)

    def _rows(self, width: int, look: Look) -> list[Text]:
        machine = self._machine
        assert machine is not None
        bar_width = max(10, min(60, width // 3))
        hardware = machine.hardware
        shown = hardware.gpus[: self.MOST_GPUS]
        rows = [row for gpu in shown for row in self._gpu(gpu, bar_width, width, look)]
        if len(hardware.gpus) > self.MOST_GPUS:
            rows.append(Text(f"and {len(hardware.gpus) - self.MOST_GPUS} more GPUs", style=look.dim))
        rows += self._ram(bar_width, width, look)
        for note in hardware.notes[:1]:
            rows += [Text(line, style=look.dim) for line in textwrap.wrap(note, max(20, width))]
        return [cut(row, width, look) for row in rows]

    def _gpu(self, gpu: Gpu, bar_width: int, width: int, look: Look) -> list[Text]:
        assert self._machine is not None
        ours = sum(each.bytes or 0 for each in gpu.processes if each.pid in self._machine.our_pids)
        row = _start(f"GPU {gpu.index}", look)
        parts = {"ours": ours, "used": max(0, gpu.used_bytes - ours)}
        row.append_text(render_memory_bar(parts, gpu.total_bytes, bar_width, look=look))
        row.append(bytes_of_text(gpu.used_bytes, gpu.total_bytes).rjust(AMOUNT_WIDTH))
        gauges = [share_text(gpu.share)] if gpu.share is not None else []
        gauges += [f"{gpu.celsius:.0f}{look.degree}"] if gpu.celsius is not None else []
        gauges += [f"{gpu.watts:.0f} W"] if gpu.watts is not None else []
        row.append("".join(f"  {gauge}" for gauge in gauges))
        users = [
            Text(
                f"{each.user}: {each.command} {bytes_text(each.bytes)}",
                style=look.accent if each.pid in self._machine.our_pids else look.dim,
            )
            for each in gpu.processes
        ]
        if not users:
            idle = "  nobody uses it"
            return [row.append(idle if row.cell_len + len(idle) <= width else "", style=look.dim)]
        return _with_users(row, users, width)

    def _ram(self, bar_width: int, width: int, look: Look) -> list[Text]:
        assert self._machine is not None
        hardware, users = self._machine.hardware, self._machine.memory_users
        used = hardware.ram.total_bytes - hardware.ram.available_bytes
        ours = min(used, sum(user.resident_bytes for user in users if user.ours))
        row = _start("RAM", look)
        parts = {"ours": ours, "used": used - ours}
        row.append_text(render_memory_bar(parts, hardware.ram.total_bytes, bar_width, look=look))
        row.append(bytes_of_text(used, hardware.ram.total_bytes).rjust(AMOUNT_WIDTH))
        row.append(f"  disk {bytes_text(hardware.disk.free_bytes)} free")
        named = [
            Text(
                f"{user.name} {bytes_text(user.resident_bytes)}",
                style=look.accent if user.ours else look.dim,
            )
            for user in users
        ]
        return _with_users(row, named, width)


def _with_users(row: Text, users: list[Text], width: int) -> list[Text]:
    """The row with its users behind it, or below it where they do not fit."""
    named = Text("  ").join(users)
    if not users or row.cell_len + 2 + named.cell_len <= width:
        return [row.append("  " if users else "").append_text(named)]
    return [row, Text(" " * LABEL_WIDTH).append_text(named)]


def _start(label: str, look: Look) -> Text:
    return Text(no_wrap=True).append(label.ljust(LABEL_WIDTH), style=look.dim)
