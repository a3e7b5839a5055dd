"""Each process of a run is ended in turn, by each signal: the run lives or can be gone on with, and says why."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tiny
from command import Finetui
from fault_ledger import Ledger
from killing import quiet_threads
from training import make_spec, write_chats
from waiting import wait_until

from engine.run.directory import RunDirectory, find_run
from engine.run.launch import launch, resume, stop
from engine.run.liveness import Liveness, liveness
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.marked import own_processes
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem

Script = Callable[..., None]

PATIENCE_SECONDS = 300
LONG = ("train", 100_000, 0.01)
VICTIMS = ("supervisor", "worker", "devices")
SIGNALS = (signal.SIGKILL, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
# What a hang-up, Ctrl+C or a shutdown may reach in any order; the rest is for the whole list.
USUAL = {
    ("supervisor", signal.SIGKILL),
    ("supervisor", signal.SIGTERM),
    ("supervisor", signal.SIGHUP),
    ("worker", signal.SIGKILL),
    ("worker", signal.SIGTERM),
    ("worker", signal.SIGINT),
    ("devices", signal.SIGKILL),
}


def processes_of(run: RunDirectory) -> dict[str, ProcessIdentity]:
    """The engine's processes: supervisor and worker, and the child that reads the devices."""
    found = recorded_processes(run)
    for seen in own_processes():
        if seen.belongs_to(run) and any(b"device_child" in word for word in seen.command):
            found["devices"] = seen.identity
    return found


def left_of(run: RunDirectory) -> list[bytes]:
    """The processes of a run that is over."""
    return [b" ".join(seen.command) for seen in own_processes() if seen.belongs_to(run) and seen.identity.is_alive()]


def told_of(run: RunDirectory, finetui: Finetui) -> tuple[Liveness, dict[str, Any]] | None:
    """Whether the run lives, and its line in the list; None where it ended in between."""
    before = liveness(run)
    (told,) = finetui("runs", "--json").json()
    return (before, told) if liveness(run) == before else None


@pytest.mark.parametrize(
    ("victim", "number"),
    [
        pytest.param(
            victim, number, id=f"{number.name} to {victim}", marks=() if (victim, number) in USUAL else pytest.mark.slow
        )
        for victim in VICTIMS
        for number in SIGNALS
    ],
)
def test_a_run_lives_or_goes_on_from_its_checkpoint(
    spec: RunSpec, script: Script, finetui: Finetui, victim: str, number: signal.Signals, ledger: Ledger
):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 2)
    processes = wait_until(lambda: found if len(found := processes_of(run)) == len(VICTIMS) else None)
    step = read_state(run).step
    assert processes[victim].send(number)
    ledger.injected(f"{number.name} to the {victim}")

    # Ended with all its processes, or on its way again with the same or another worker.
    wait_until(lambda: (liveness(run) != "live" and not left_of(run)) or read_state(run).step > step + 20)
    life, told = wait_until(lambda: told_of(run, finetui))
    if life == "live":
        assert told["state"] in ("running", "preparing")
        with suppress(Problem):  # it was on the way to its end already
            stop(run)
        wait_until(lambda: liveness(run) != "live")
    else:
        assert told["state"] in ("failed", "stopped") and told["why"] and "\n" not in told["why"]
    wait_until(lambda: not left_of(run))

    saved = max((int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")), default=0)
    if victim != "worker" or number not in (signal.SIGKILL, signal.SIGQUIT):
        assert saved >= step, "what was learnt was saved first"
    attempts = read_state(run).attempts
    resume(run)
    wait_until(lambda: read_state(run).attempts > attempts and read_state(run).step > saved)
    assert (read_state(run).resumed_from or 0) == saved
    stop(run)
    wait_until(lambda: liveness(run) != "live" and not left_of(run))


# With a real model


@pytest.fixture
def real_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    quiet_threads()
    return tmp_path / "home"


@pytest.mark.slow
def test_everything_is_killed_in_turn_and_one_training_comes_to_its_end(
    tmp_path: Path, real_home: Path, ledger: Ledger
):
    """Starter, supervisor, worker, device feed, and the children that prepare the data: what `finetui` shows after
    each is one sentence, and the run is finished at last."""
    model = tiny.make_model(tmp_path / "llama")
    rows = write_chats(tmp_path / "chats.jsonl", 1000)
    with rows.open("ab") as file:  # so many that several processes prepare them
        file.write(rows.read_bytes() * 60)
    spec = make_spec(model, rows, train={"max_steps": 40, "probe": False}, checkpoint={"every_steps": 5})
    spec_path = tmp_path / "spec.toml"
    spec_path.write_text(spec.to_toml())
    finetui = Finetui(real_home, {"OMP_NUM_THREADS": "1"})

    starter = subprocess.Popen(
        finetui.argv("train", spec_path, "--wait"),
        env=finetui.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = wait_until(_newest, PATIENCE_SECONDS)
    wait_until(lambda: liveness(run) == "live", PATIENCE_SECONDS)
    starter.kill()
    starter.wait()
    ledger.injected("SIGKILL to the starter")

    killed = set()
    for victim in ("data", "devices", "worker", "supervisor", "worker", "supervisor"):
        wait_until(lambda: _settled(run), PATIENCE_SECONDS)
        if liveness(run) != "live":
            (told,) = finetui("runs", "--json").json()
            assert told["state"] == "failed" and told["why"] and told["remedy"], told
            wait_until(lambda: not left_of(run), PATIENCE_SECONDS)
            again = finetui("resume", run.name)
            assert again.status == 0, again
        process = wait_until(lambda victim=victim: _victim(run, victim), PATIENCE_SECONDS)
        if isinstance(process, ProcessIdentity) and process.send(signal.SIGKILL):
            killed.add(victim)
            ledger.injected(f"SIGKILL to the {victim}")
    for _ in range(3):
        wait_until(lambda: liveness(run) != "live" and not left_of(run), PATIENCE_SECONDS)
        if read_state(run).outcome == "finished":
            break
        resume(run)
    state = read_state(run)
    assert (state.outcome, state.step) == ("finished", 40), (state.why, run.log_path.read_text()[-3000:])
    assert killed == {"data", "worker", "supervisor", "devices"}
    assert (run.outputs / "adapter" / "adapter_model.safetensors").is_file()


def _newest() -> RunDirectory | None:
    try:
        return find_run("latest")
    except Problem:
        return None


def _settled(run: RunDirectory) -> bool:
    return liveness(run) != "live" or "worker" in processes_of(run)


def _victim(run: RunDirectory, name: str) -> ProcessIdentity | bool:
    """The process to kill, once it is there; True when the run went past the time in which there is such a one."""
    if name != "data":
        return processes_of(run).get(name) or liveness(run) != "live"
    for seen in own_processes():
        if seen.belongs_to(run) and any(b"engine.data.crew" in word for word in seen.command):
            return seen.identity
    return read_state(run).step > 0 or liveness(run) != "live"
