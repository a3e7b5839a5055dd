"""The sample data: each shape in its format is understood by itself, or as samples.toml says."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.data.preview import preview
from engine.data.shapes import objective_for
from engine.spec import SourceSection

FOLDER = Path(__file__).parent / "samples"
SAMPLES = tomllib.loads((FOLDER / "samples.toml").read_text())
PACKED = (".gz", ".zst", ".parquet", ".arrow")
"""What another version of a library may write in other bytes."""


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_understood(name: str) -> None:
    told = SAMPLES[name]
    found = preview(SourceSection(path=FOLDER / name, **told.get("source", {})).source())
    assert found.unclear is None and found.kind == told["kind"] and found.complete
    assert (found.rows, found.reject_count, found.rejected) == (told["rows"], 0, ())
    assert objective_for(told["kind"]) == told["objective"]
    assert not any("copies" in note for note in found.notes)
    for suggestion in found.suggestions:
        assert preview(suggestion.source).usable_rows == found.rows


def test_the_samples_are_what_their_maker_makes(tmp_path: Path) -> None:
    maker = importlib.util.spec_from_file_location("make_samples", FOLDER / "make_samples.py")
    assert maker is not None and maker.loader is not None
    module: Any = importlib.util.module_from_spec(maker)
    maker.loader.exec_module(module)
    module.FOLDER = tmp_path
    module.main()
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert made == kept - {Path("make_samples.py"), Path("samples.toml")}
    assert {path.parts[0] for path in made} == set(SAMPLES)
    for path in made:
        if path.suffix not in PACKED:
            assert (tmp_path / path).read_bytes() == (FOLDER / path).read_bytes(), path
