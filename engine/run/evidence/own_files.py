"""The files in a run's own folder against what its audit log says of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.run.checkpoints.manifest import MANIFEST, list_checkpoints, step_of
from engine.run.checkpoints.verifying import damage
from engine.run.directory import RunDirectory
from engine.run.evidence.audit import audit_path, read_audit
from engine.run.evidence.chain import Chain, Entry
from engine.run.evidence.findings import DAMAGE, Finding, Findings, Reading, compare_file, words_of
from engine.run.evidence.hashing import hash_of, read_plain, small_sha256
from engine.run.evidence.lineage import lineage_alone, section_sha256
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.reading import open_journal
from profiles.problem import printable

# Of the files that nothing was written down of.
_NAMED = 12
# Of a run's state what it is judged by; its curves are thinned out in another way where a journal is read at once.
_TOLD = (
    *("outcome", "cause", "why", "step", "evaluations", "samples", "plan", "outputs", "checkpoint_step", "best_step"),
    *("attempts", "seal", "seal_checks", "seal_changed", "ways_out", "continued", "adjusted"),
)
_OTHER = "was changed after it was written"


def newest(chain: Chain, *whats: str) -> Entry | None:
    """The newest entry of one of these kinds."""
    return next((entry for entry in reversed(chain.entries) if entry.what in whats), None)


def end_of(chain: Chain) -> Entry | None:
    """The entry of the run's end, where nothing was begun after it."""
    entry = newest(chain, "ended", "started", "resumed", "attempt")
    return entry if entry is not None and entry.what == "ended" else None


def written_once(run: RunDirectory, chain: Chain) -> Findings:
    """spec.toml and environment.json."""
    created = newest(chain, "created")
    for path, field in ((run.spec_path, "spec_sha256"), (run.environment_path, "environment_sha256")):
        was = created.facts.get(field) if created is not None else None
        now = small_sha256(path)
        if was is None:
            yield Finding("unchecked", path.name, "the log does not say what it was when the run was made")
        elif now is None:
            yield Finding("differs", path.name, "is gone, or cannot be read", f"SHA-256 {was[:16]}…")
        elif now != was:
            yield Finding("differs", path.name, _OTHER, f"SHA-256 {was[:16]}…", f"SHA-256 {now[:16]}…")
        else:
            yield Finding("matches", path.name, "is as it was when the run was made")


def lineage_file(run: RunDirectory, chain: Chain) -> Findings:
    """Each section against the newest hash that was recorded of it."""
    with lineage_alone(run):  # or what a live run writes just now would seem to be a change
        log = read_audit(run)
        try:
            sections = json.loads(read_plain(run.lineage_path))
        except FileNotFoundError:
            sections = {}
    if not isinstance(sections, dict):
        raise TypeError("no sections")
    recorded = _recorded_sections(log)
    for name in dict.fromkeys((*recorded, *sections)):
        where, was = f"lineage.json, {name}", recorded.get(name, [])
        now = section_sha256(sections[name]) if name in sections else ""
        if not was and not chain.entries:
            yield Finding("unchecked", where, "there is no log that says what it was")
        elif not was:
            yield Finding("differs", where, "the log knows of no such section: finetui did not write it")
        elif now in _left_by_kills(log, name):
            yield Finding("note", where, "is as it was before: who was to write it anew was killed just then")
        elif not now:
            yield Finding("differs", where, "is missing", f"SHA-256 {was[-1][:16]}…")
        elif now == was[-1]:
            yield Finding("matches", where, "is as it was recorded")
        else:
            older = "is an older state of it: a power cut took the newer one back, or somebody did"
            means = older if now in was else _OTHER
            yield Finding("differs", where, means, f"SHA-256 {was[-1][:16]}…", f"SHA-256 {now[:16]}…")


def journal(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    """events.jsonl: the checksum of each line, and all bytes up to where the log last recorded their hash."""
    name, mark = run.events_path.name, _journal_mark(chain)
    if not run.events_path.exists():
        if mark:
            yield Finding("differs", name, "is gone", words_of(mark))
        elif chain.entries:
            yield Finding("note", name, "there is none yet: the run was never started")
        return
    if not run.events_path.is_file():
        yield Finding("differs", name, "is no plain file any more")
        return
    size, vouched = run.events_path.stat().st_size, 0
    if mark:
        now = hash_of(run.events_path, lambda count: read(name, count), int(mark["bytes"]))
        if now == mark:
            vouched = now["bytes"]
            yield Finding("matches", name, f"its first {vouched:,} bytes are as they were recorded")
        elif now["bytes"] < mark["bytes"]:
            yield Finding("differs", name, "was cut short", words_of(mark), words_of(now))
        else:
            yield Finding("differs", name, _OTHER, words_of(mark), words_of(now))
    tail = JournalTail(run.events_path, vouched)
    lines = 0
    while chunk := tail.chunk():
        lines += chunk.count(b"\n")
    tail = JournalTail(run.events_path, vouched)
    while tail.read():
        pass
    if tail.damaged:
        yield Finding("differs", name, f"{tail.damaged:,} of its lines were changed, or broke off in a crash")
    elif lines or not mark:
        yield Finding("matches", name, f"the checksums of {lines:,} {'more ' * bool(mark)}lines are right")
    if size > tail.offset:  # as it was before: a live run adds to it meanwhile
        yield Finding("note", name, "its last line broke off: a power cut or a kill came while it was written")


def snapshot(run: RunDirectory) -> Findings:
    """snapshot.json, a fold of the journal's beginning that commands go by instead of it: whether it says the same."""
    if not run.snapshot_path.exists():
        return
    name = run.snapshot_path.name
    if not run.snapshot_path.is_file():
        yield Finding("differs", name, "is no plain file any more")
        return
    by_snapshot, read = open_journal(run)
    whole, tail = Folding(), JournalTail(run.events_path)
    # As far as was read with the snapshot: a live run goes on writing.
    while (left := read.offset - tail.offset) > 0 and (events := tail.read(min(1 << 20, left))):
        for event in events:
            whole.add(event)
    said, journalled = by_snapshot.state(), whole.state()
    differs = [field for field in _TOLD if _as_json(getattr(said, field)) != _as_json(getattr(journalled, field))]
    if differs:
        means = f"does not say what the journal says ({', '.join(differs)}); remove it, and the journal is read instead"
        yield Finding("differs", name, means)
    else:
        yield Finding("matches", name, "says what the journal says")


def checkpoints(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    """Every file of each against its manifest, and the manifest against the log."""
    recorded: dict[int, str] = {}
    last: int | None = None
    for entry in chain.entries:
        if entry.what == "checkpoint":
            recorded |= {int(step): str(sha256) for step, sha256 in (entry.facts.get("others") or {}).items()}
            if entry.facts["manifest_sha256"] is not None:
                last = int(entry.facts["step"])
                recorded[last] = str(entry.facts["manifest_sha256"])
    paths = list_checkpoints(run.checkpoints)
    for path in paths:
        where, step = f"checkpoints/{path.name}", step_of(path)
        with suppress(FileNotFoundError):
            read(path.name, sum(each.stat().st_size for each in path.iterdir() if each.is_file()))
        # A pipe in its place would be waited for.
        why = damage(path) if (path / MANIFEST).is_file() else f"{MANIFEST} is missing"
        was, now = recorded.get(step or 0), small_sha256(path / MANIFEST, root=run.path)
        if not path.is_dir():
            continue  # a live run removed it for a newer one, be it after the first look at it
        if why is not None:
            yield Finding("differs", where, why)
        elif was is None:
            yield Finding("unchecked", where, "is whole by its manifest, which no entry of the log vouches for")
        elif was != now:
            means = "is not the checkpoint that was saved"
            yield Finding("differs", where, means, f"manifest {was[:16]}…", f"manifest {str(now)[:16]}…")
        else:
            yield Finding("matches", where, "is as it was saved")
    steps = [step or 0 for step in map(step_of, paths)]
    if last is not None and not any(step >= last for step in steps):
        yield Finding("differs", f"checkpoints/step-{last:06d}", "is gone, and was the newest")


def kept_data(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    """The run's shards: their tokens against the lineage; and all that it keeps together against what was recorded at
    its end."""
    yield from _kept(run, chain, read)
    # The lineage first: a live run writes it once the shards are there.
    shards = _lineage_shards(run)
    files = sorted(run.data.rglob("*.safetensors")) if run.data.is_dir() else []
    if not files and not shards:
        return
    from engine.data.prepare.shards import Shard  # here, since it takes numpy

    names = {path.name: path for path in files}
    wrong = 0
    for name, was in shards.items():
        where = f"data/{name}"
        path = names.get(name)
        if path is None or not path.is_file():
            wrong += 1
            yield Finding("differs", where, "is gone: a resume prepares it again from the data, if that is unchanged")
            continue
        read(name, path.stat().st_size)
        try:
            shard = Shard(path)
            intact = shard.is_intact() and shard.facts.records_sha256 == was
        except DAMAGE:
            intact = False
        if not intact:
            wrong += 1
            yield Finding("differs", where, "does not hold the tokens that were learnt from", f"SHA-256 {was[:16]}…")
    if not wrong and shards:
        counted = "its shard holds" if len(shards) == 1 else f"its {len(shards):,} shards hold"
        yield Finding("matches", "data", f"{counted} the tokens that were learnt from")


def _kept(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    end = end_of(chain)
    if end is None or not isinstance(was := end.facts.get("kept"), dict):
        return
    where, now = "data and evaluation", kept_digest(run, read)
    if now == was:
        yield Finding("matches", where, "hold what they held when the run ended")
    else:
        means = "were changed, added to or removed from since the run ended"
        yield Finding("differs", where, means, words_of(was), words_of(now))


def outputs(run: RunDirectory, chain: Chain, read: Reading) -> Findings:
    """What the run handed over, against what was recorded at its end."""
    end = end_of(chain)
    if end is None:
        if run.outputs.is_dir() and any(run.outputs.iterdir()):
            yield Finding("unchecked", "outputs", "they are recorded when the run ends, which the log does not tell of")
        return
    if (why := end.facts.get("unread")) is not None:
        yield Finding("unchecked", "outputs", f"could not be recorded when the run ended: {printable(why, 200)}")
        return
    recorded = end.facts.get("outputs", {})
    for name, files in recorded.items():
        for place, was in files.items():
            where = f"outputs/{name}/{place}"
            found = compare_file(run.outputs / name / place, was, where, _OTHER, read)
            gone = found.kind == "gone"
            yield Finding("differs", where, "is gone", found.was) if gone else found
    known = {f"{name}/{place}" for name, files in recorded.items() for place in files}
    for path in sorted(run.outputs.rglob("*")) if run.outputs.is_dir() else ():
        place = str(path.relative_to(run.outputs))
        if not path.is_dir() and place not in known and not place.startswith(".staging"):
            yield Finding("differs", f"outputs/{place}", "was added after the run ended")


def unvouched(run: RunDirectory, chain: Chain) -> Findings:
    """The files in the run's folder that nothing was written down of."""
    vouched = {
        run.snapshot_path,
        run.spec_path,
        run.environment_path,
        run.lineage_path,
        run.events_path,
        audit_path(run),
    }
    folders = {run.checkpoints.name, run.outputs.name, run.exports.name}
    kept = set(_kept_files(run)) if end_of(chain) is not None else set(run.data.rglob("*.safetensors"))
    names = []
    # Unlike rglob, walk passes over a folder that a live run removes meanwhile.
    for path in sorted(Path(root, name) for root, _, files in os.walk(run.path) for name in files):
        place = path.relative_to(run.path)
        if path not in vouched and path not in kept and place.parts[0] not in folders:
            names.append(printable(place))
    if names:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        yield Finding("note", run.name, f"nothing was written down of {', '.join(names[:_NAMED])}{more}")


def kept_digest(run: RunDirectory, read: Reading = lambda what, count: None) -> dict[str, Any]:
    """What the run keeps beside its checkpoints and outputs to go on from: the bytes of its prepared data, the rows set
    aside and what the base says, and one hash over the hashes and names of these files. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    for path in _kept_files(run):
        contents = hash_of(path, lambda count, name=path.name: read(name, count), root=run.path)  # type: ignore[misc]
        digest.update(f"{contents['sha256']}  {path.relative_to(run.path)}\n".encode(errors="surrogateescape"))
        size += contents["bytes"]
    return {"bytes": size, "sha256": digest.hexdigest()}


def _kept_files(run: RunDirectory) -> list[Path]:
    folders = (run.data, run.evaluation)
    paths = (path for folder in folders if folder.is_dir() for path in folder.rglob("*"))
    # A link is a worker's, and leads wherever that wanted: there is none of ours.
    return sorted(path for path in paths if not path.is_symlink() and not path.is_dir())


def _recorded_sections(chain: Chain) -> dict[str, list[str]]:
    """By section, the hashes that were recorded of it, oldest first."""
    recorded: dict[str, list[str]] = {}
    for entry in chain.entries:
        for name, sha256 in (entry.facts.get("sections") or {}).items():
            recorded.setdefault(str(name), []).append(str(sha256))
    return recorded


def _left_by_kills(chain: Chain, name: str) -> set[str]:
    """The older states of section `name`, by their hashes ("" where there was none), that no person need have brought
    back. The file is written after the log: a process that is killed between the two leaves what was there before, and
    has recorded nothing since."""
    writers = [entry.pid for entry in chain.entries]
    states, left = ["", *_recorded_sections(chain)[name]], set()
    places = [n for n, entry in enumerate(chain.entries) if name in (entry.facts.get("sections") or {})]
    for place in reversed(places):
        if writers[place] in writers[place + 1 :]:
            break
        states.pop()
        left.add(states[-1])
    return left


def _journal_mark(chain: Chain) -> dict[str, Any]:
    marks = (entry.facts.get("journal") for entry in reversed(chain.entries))
    return next((mark for mark in marks if isinstance(mark, dict)), {})


def _as_json(value: Any) -> str:
    """As it is read back from a file, tuples as lists."""
    return json.dumps(
        value, sort_keys=True, default=lambda each: dict(each) if isinstance(each, Mapping) else asdict(each)
    )


def _lineage_shards(run: RunDirectory) -> dict[str, str]:
    try:
        data = json.loads(read_plain(run.lineage_path))["data"]
        return {str(each["name"]): str(each["sha256"]) for each in data["shards"]}
    except DAMAGE:
        return {}  # what is wrong with the lineage was told of already
