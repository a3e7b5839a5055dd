"""Machines that are not this one: written and read back, refused where they are nonsense, or only planned for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import GIB, Board, FakeNvml
from hypothesis import given
from hypothesis import strategies as st

from profiles.hardware import Hardware, probe
from profiles.hardware_file import hypothetical, load_hardware, with_vram
from profiles.machine.nvml import Nvml
from profiles.problem import Problem
from profiles.quantities import parse_bytes


def machine(tmp_path: Path, *boards: Board) -> Hardware:
    return probe(tmp_path, nvml=Nvml(FakeNvml(*boards), {}))


def written(tmp_path: Path, values: Any) -> Path:
    path = tmp_path / "machine.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_what_a_machine_prints_is_what_another_reads(tmp_path: Path) -> None:
    found = machine(tmp_path, Board("GPU-a", processes=[(os.getpid(), 3 * GIB), (2**22 + 1, None)]), Board("GPU-b"))
    read = load_hardware(written(tmp_path, found.as_dict()))
    assert read.notes[0].startswith("Read from ") and read.notes[1:] == found.notes
    assert replace(read, notes=found.notes) == found


def test_a_file_by_hand_may_name_no_more_than_the_card(tmp_path: Path) -> None:
    values = {
        "version": 1,
        "cpu": {"physical_cores": 8},
        "ram": {"total_bytes": 64 * GIB},
        "disk": {"total_bytes": GIB, "free_bytes": GIB},
        "gpus": [{"name": "RTX 3090"}],
    }
    (gpu,) = load_hardware(written(tmp_path, values)).gpus
    assert (gpu.total_bytes, gpu.free_bytes, gpu.capability, gpu.native_bf16) == (24 * GIB, 24 * GIB, (8, 6), True)


def remove(*keys: str | int) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        place = values
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        return values

    return change


def put(value: Any, *keys: str | int) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        place = values
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return values

    return change


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        (put(2, "version"), "field version", "reads up to 1"),
        (remove("version"), "field version", "is missing"),
        (put("1", "version"), "field version", "whole number"),
        (remove("ram"), "field ram", "is missing"),
        (put([], "cpu"), "field cpu", "an object"),
        (put(-1, "ram", "total_bytes"), "field ram.total_bytes", "is -1"),
        (put(True, "ram", "total_bytes"), "field ram.total_bytes", "is True"),
        (put(1 << 70, "ram", "total_bytes"), "field ram.total_bytes", "whole number"),
        (put(1 << 59, "ram", "available_bytes"), "field ram.available_bytes", "whole number from 0"),
        (put("RTX", "gpus"), "field gpus", "a list"),
        (put(["RTX"], "gpus"), "field gpus[0]", "an object"),
        (put(-5, "gpus", 0, "total_bytes"), "field gpus[0].total_bytes", "is -5"),
        (remove("gpus", 0, "total_bytes"), "field gpus[0].total_bytes", "is missing"),
        (remove("gpus", 0, "name"), "field gpus[0].name", "is missing"),
        (put(99 * GIB, "gpus", 0, "used_bytes"), "field gpus[0].used_bytes", "whole number from 0"),
        (put([8], "gpus", 0, "capability"), "field gpus[0].capability", "[8, 9]"),
        (put("warm", "gpus", 0, "celsius"), "field gpus[0].celsius", "a number"),
        (put(-1.5, "disk", "write_bytes_per_second"), "field disk.write_bytes_per_second", "not negative"),
        (put("yes", "cpu", "native_bf16"), "field cpu.native_bf16", "true or false"),
        (put([{"pid": "x"}], "gpus", 0, "processes"), "field gpus[0].processes[0].pid", "whole number"),
        (lambda values: [values], "", "no object"),
        (lambda values: "{", "", "not JSON"),
        (lambda values: json.dumps(values).replace("{", '{"version": 1, ', 1), "", "there twice"),
        (lambda values: "", "", "is empty"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_field(
    tmp_path: Path, change: Callable[[Any], Any], where: str, words: str
) -> None:
    values = machine(tmp_path, Board("GPU-a", name="NVIDIA Unknown Card")).as_dict()
    with pytest.raises(Problem) as caught:
        load_hardware(written(tmp_path, change(values)))
    assert caught.value.where.endswith(where) and words in f"{caught.value.what} {caught.value.fix}"


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["version", "cpu", "ram", "disk", "gpus", "name", "total_bytes", "physical_cores"]), inner, max_size=4), max_leaves=12))  # fmt: skip  # noqa: E501
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    try:
        load_hardware(written(tmp_path_factory.mktemp("any"), values))
    except Problem as problem:
        assert problem.fix


def test_the_same_machine_with_another_amount_of_memory(tmp_path: Path) -> None:
    here = machine(tmp_path, Board("GPU-a", used=9 * GIB, processes=[(os.getpid(), GIB)]), Board("GPU-b"))
    (gpu,) = with_vram(here, 48 * GIB).gpus
    assert (gpu.name, gpu.total_bytes, gpu.free_bytes, gpu.processes) == ("NVIDIA Test GPU", 48 * GIB, 48 * GIB, ())
    without = with_vram(machine(tmp_path), 24 * GIB)
    assert without.gpus[0].native_bf16 and without.gpus[0].free_bytes == 24 * GIB
    assert "24 GiB" in without.notes[0] and "as fast as" in without.notes[0]


def test_a_card_of_the_catalogue_and_names_that_come_near() -> None:
    spark = hypothetical("nvidia gb10")
    assert spark.gpus[0].unified and spark.ram.total_bytes == spark.gpus[0].total_bytes
    with pytest.raises(Problem, match="RTX 4090"):
        hypothetical("rtx 4900")
    with pytest.raises(Problem, match="24GiB"):
        hypothetical("\x1b[31m")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * GIB),
        ("24 GB", 24 * GIB),
        ("24g", 24 * GIB),
        (" 0.5 GiB ", GIB // 2),
        ("512M", GIB // 2),
        ("1073741824", GIB),
        ("1TiB", 1024 * GIB),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text, "--vram") == size


@pytest.mark.parametrize(
    "text", ["-3", "lots", "", "GiB", "0", "0.1", "1e9", "nan", "inf", "24 Gib ytes", "24,5GiB", "٣GiB", "9" * 400]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Problem, match=r"--vram.*\n.*24GiB"):
        parse_bytes(text, "--vram")
