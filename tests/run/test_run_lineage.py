"""lineage.json: sections are written whole beside each other, and a damaged file is as good as none."""

from __future__ import annotations

from engine.run.directory import RunDirectory
from engine.run.evidence.lineage import read_lineage, write_lineage


def test_sections_stand_beside_each_other(tmp_path):
    run = RunDirectory(tmp_path)
    assert read_lineage(run) == {}
    write_lineage(run, {"data": {"rows": 1}})
    write_lineage(run, {"seal": {"level": "best"}})
    write_lineage(run, {"data": {"rows": 2}})
    assert read_lineage(run) == {"data": {"rows": 2}, "seal": {"level": "best"}}
    run.lineage_path.write_bytes(b'{"data"')
    assert read_lineage(run) == {}
