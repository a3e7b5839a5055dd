"""Every way in which a run ends, brought about, told apart, and shown with what to do about it."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Finetui
from fault_ledger import Ledger
from waiting import events_of, kill_run, wait_until

from engine.data.crew import run_crew
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory, disk_problem
from engine.run.endings.causes import CAUSES, Ending
from engine.run.endings.deaths import told_ending
from engine.run.endings.errors import ending_of_error
from engine.run.endings.gpu_words import gpu_fault
from engine.run.endings.kernel_log import KernelLog, with_xids
from engine.run.endings.remedies import remedy_for
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.channel import MemoryChannel
from engine.run.processes.recorded import recorded_processes
from engine.run.summary import RunSummary, summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from engine.train import worker
from profiles.problem import Problem

Script = Callable[..., None]

# As the libraries say it, each with a part of what stands around it.
LOST = [
    "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered\nSearch for `cudaErrorECCUncorrectable'",
    "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "RuntimeError: No CUDA GPUs are available: CUDA error: no CUDA-capable device is detected",
    "pynvml.NVMLError_GpuIsLost: GPU is lost",
    "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution",
]
DRIVER = [
    "torch.AcceleratorError: CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.",
    "RuntimeError: CUDA error: an illegal memory access was encountered",
    "RuntimeError: CUDA error: the launch timed out and was terminated",
    "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`",
    "terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: driver shutting down",
    "RuntimeError: CUDA error: unknown error",
    "RuntimeError: CUDA error: misaligned address",
    "RuntimeError: CUDA error: Invalid access of peer GPU memory over nvlink or a hardware error",
]
OURS = [
    "RuntimeError: CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side "
    "assertions.",
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x8 and 16x4)",
]


def of_kind(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    return [event for event in events_of(run) if event["kind"] == kind]


def ended(run: RunDirectory) -> RunSummary:
    """The run's line once no engine has it any more; what the end event says is what it says."""
    wait_until(lambda: liveness(run) != "live")
    summary = summarise(run)
    if ends := of_kind(run, "end"):
        told = ends[-1]["outcome"], ends[-1]["cause"], ends[-1]["why"], ends[-1]["remedy"]
        assert told == (summary.state, summary.cause, summary.why, summary.remedy)
    return summary


def assert_readable(summary: RunSummary) -> None:
    """A sentence each, for somebody who is tired, and the command to type where there is one."""
    for text in (summary.why, summary.remedy):
        assert "\n" not in text and "Traceback" not in text and len(text) < 700
    assert summary.why and (summary.cause == "finished" or f"`finetui resume {summary.name}" in summary.remedy)


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_a_remedy_that_names_its_command_or_needs_none(spec: RunSpec, cause: Any):
    run = create_run(spec)
    assert (remedy_for(cause, run) == "") == (cause == "finished")
    (run.checkpoints / "step-000040").mkdir(parents=True)
    remedy = remedy_for(cause, run)
    assert cause == "finished" or (f"finetui resume {run.name}" in remedy and remedy.endswith("."))
    assert "{" not in remedy and (cause in ("finished", "not_finite", "changed") or "from step 40" in remedy)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGALRM])
def test_a_trainer_that_dies_once_is_started_again_and_the_run_finishes(
    spec: RunSpec, script: Script, tmp_path: Path, ledger: Ledger, number: signal.Signals
):
    script(["save_at", 3], ["kill_once", number, str(tmp_path / "died")], ["train", 6, 0])
    run = launch(spec)
    summary = ended(run)
    assert (summary.state, summary.cause, summary.remedy, summary.step) == ("finished", "finished", "", 6), summary.why
    (restart,) = of_kind(run, "restart")
    assert restart["cause"] == ("worker_crashed" if number == signal.SIGSEGV else "worker_killed")
    assert restart["step"] == 3 and restart["text"].endswith("; it goes on from step 3 with a new trainer")
    assert [attempt["resumed_from"] for attempt in of_kind(run, "attempt")] == [None, 3]
    assert read_state(run).restarts[0]["what"] in read_state(run).notes[0]
    ledger.injected(f"trainer ended by {number.name}")


def test_a_trainer_that_dies_again_and_again_is_started_while_that_leads_further(
    spec: RunSpec, script: Script, ledger: Ledger
):
    script(["learn_and_die", 3, 12], ["train", 13, 0])
    run = launch(spec)
    assert ended(run).state == "finished"
    assert [restart["step"] for restart in of_kind(run, "restart")] == [3, 6, 9, 12]
    ledger.injected("trainer ended by SIGKILL", 4)


@pytest.mark.parametrize(
    ("actions", "cause", "said"),
    [
        ([["kill", signal.SIGKILL]], "worker_killed", r"the trainer was killed from outside \(SIGKILL\)"),
        ([["kill", signal.SIGSEGV]], "worker_crashed", r"native code \(SIGSEGV\): Fatal Python error: Segmentation f"),
        ([["kill", signal.SIGABRT]], "worker_crashed", r"native code \(SIGABRT\): Fatal Python error: Aborted"),
        ([["fail", DRIVER[0]]], "driver_fault", "the GPU's driver failed: .*unspecified launch failure"),
        ([["write", DRIVER[4]], ["kill", signal.SIGABRT]], "driver_fault", "CUDA error: driver shutting down"),
    ],
)
def test_a_death_that_comes_again_at_once_ends_the_run_after_one_restart(
    spec: RunSpec, script: Script, ledger: Ledger, actions: list, cause: str, said: str
):
    script(["train", 2, 0, False], *actions)
    run = launch(spec)
    summary = ended(run)
    assert (summary.state, summary.cause) == ("failed", cause)
    assert re.search(said, summary.why) and "again after a restart, which came no further than step 2" in summary.why
    assert len(of_kind(run, "attempt")) == 2
    assert_readable(summary)
    ledger.injected(f"trainer dies again and again: {cause}", 2)


@pytest.mark.parametrize(
    ("actions", "cause", "said"),
    [
        ([["fail", LOST[0]]], "device_lost", "the GPU was lost: .*uncorrectable ECC error"),
        ([["send", "outcome", {"outcome": "failed", "cause": "device_lost", "why": "lost"}]], "device_lost", "lost"),
        ([["fail", OURS[0]]], "fault", "device-side assert triggered"),
        ([["send", "outcome", {"outcome": "failed", "cause": "disk_full", "why": "full"}]], "disk_full", "full"),
    ],
)
def test_what_another_try_would_meet_again_ends_the_run_at_once(
    spec: RunSpec, script: Script, ledger: Ledger, actions: list, cause: str, said: str
):
    script(["save_at", 3], *actions)
    run = launch(spec)
    summary = ended(run)
    assert (summary.state, summary.cause, len(of_kind(run, "attempt"))) == ("failed", cause, 1)
    assert re.search(said, summary.why)
    assert_readable(summary)
    ledger.injected(f"trainer ends: {cause}")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_at_the_ladders_end_it_is_told_whose_memory_it_was(
    unsealed: RunSpec, script: Script, ledger: Ledger, device: str
):
    text = {"where": "evaluation", "what": "out of memory", "device": device}
    script(["send", "out_of_memory", text], ["leave", 3])
    run = launch(unsealed)
    summary = ended(run)
    assert summary.cause == ("gpu_memory" if device == "cuda" else "host_memory")
    assert ("GPU memory" if device == "cuda" else "RAM") in summary.remedy
    assert_readable(summary)
    ledger.injected(f"out of memory on every rung: {device}", len(of_kind(run, "attempt")))


@pytest.mark.parametrize("way", ["kill", "killed from outside"])
def test_no_restart_follows_on_a_stop_or_a_kill_by_a_person(spec: RunSpec, script: Script, way: str):
    script(["save_at", 3], ["hang"])
    run = launch(spec)
    wait_until(lambda: "hanging" in read_state(run).notes)
    if way == "kill":
        ask(run, "kill")
    else:
        stop(run)
        wait_until(lambda: read_state(run).stop_requested)
        recorded_processes(run)["worker"].send(signal.SIGKILL)
    summary = ended(run)
    assert (summary.state, summary.cause) == ("stopped", "stopped") and not of_kind(run, "restart")
    assert summary.remedy == f"Go on from step 3 with `finetui resume {run.name}`."


def test_a_trainer_that_is_told_to_stop_before_it_listens_is_stopped(spec: RunSpec, script: Script):
    script(["die_unprepared", signal.SIGTERM])
    run = launch(spec)
    summary = ended(run)
    assert (summary.state, summary.cause) == ("stopped", "stopped") and not of_kind(run, "restart")


def test_a_run_that_learnt_on_a_gpu_does_not_go_on_without_it_unasked(spec: RunSpec, script: Script, ledger: Ledger):
    gpu, cpu = ({"planned_steps": 9, "device": device} for device in ("cuda", "cpu"))
    script(["send", "plan", gpu], ["save_at", 3], ["fail", DRIVER[0]])
    run = launch(spec)
    assert ended(run).cause == "driver_fault"
    script(["send", "plan", cpu], ["train", 9, 0.01])
    for _ in range(2):
        resume(run)
        summary = ended(run)
        assert (summary.state, summary.cause) == ("failed", "device_lost"), "however often it is tried"
        assert "is not there any more" in summary.why and "--anyway" in summary.remedy
    resume(run, anyway=True)
    assert ended(run).state == "finished"
    ledger.injected("GPU gone at a resume", 2)


def test_a_run_whose_engine_is_gone_says_whether_it_was_killed_or_the_machine_restarted(
    spec: RunSpec, script: Script, finetui: Finetui, ledger: Ledger
):
    script(["save_at", 3], ["train", 100_000, 0.01])
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 4)
    kill_run(run)
    killed = ended(run)
    step = read_state(run).step
    assert (killed.state, killed.cause) == ("failed", "engine_killed")
    assert killed.why == f"its engine was killed from outside after step {step}; the checkpoint of step 3 remains"
    assert killed.remedy == f"Go on from step 3 with `finetui resume {run.name}`."

    # As a machine leaves it that went down: the same files, of another boot.
    record = json.loads(run.pid_path.read_text())
    for name in record:
        record[name]["boot_id"] = str(uuid.uuid4())
    run.pid_path.write_text(json.dumps(record))
    restarted = ended(run)
    assert (restarted.cause, restarted.remedy) == ("machine_restarted", killed.remedy)
    assert (
        restarted.why == f"the machine went down or was restarted after step {step}; the checkpoint of step 3 remains"
    )
    shown = finetui("show", run.name, "--json").json()
    assert [shown[name] for name in ("state", "cause", "why", "remedy")] == [
        *("failed", "machine_restarted", restarted.why, restarted.remedy)
    ]
    # A home on a network disk: the engine was another machine's, of which this one's boot says nothing.
    environment = json.loads(run.environment_path.read_text())
    run.environment_path.write_text(json.dumps({**environment, "host": "another-machine"}))
    assert ended(run).why.startswith("its engine on another machine, another-machine, is gone after step ")
    run.environment_path.write_text(json.dumps(environment))

    script(["train", 5, 0])
    resume(run)
    assert ended(run).state == "finished"
    ledger.injected("supervisor and trainer ended by SIGKILL")
    ledger.injected("machine restarted")


def test_an_end_that_the_disk_did_not_take_is_told_as_such(spec: RunSpec, script: Script, ledger: Ledger):
    script(["train", 100_000, 0.01])
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 1)
    kill_run(run)
    with run.log_path.open("a") as log:
        print("not journalled (No space left on device): end {'outcome': 'failed'}", file=log)
    summary = ended(run)
    assert (summary.cause, "No space left on device" in summary.why) == ("disk_full", True)
    assert_readable(summary)
    ledger.injected("no room for the end event")


def test_a_run_without_a_journal_and_one_of_an_older_finetui_have_causes_too(spec: RunSpec, script: Script):
    script(["train", 1, 0])
    run = launch(spec)
    ended(run)
    lines = run.events_path.read_bytes().splitlines(keepends=True)
    old = {"v": 1, "seq": len(lines), "at": 0.0, "kind": "end", "outcome": "stopped", "why": "asked", "step": 1}
    run.events_path.write_bytes(b"".join(lines[:-1]) + json.dumps(old).encode() + b"\n")
    summary = summarise(run)
    assert (summary.cause, summary.remedy) == ("stopped", remedy_for("stopped", run))
    run.events_path.unlink()
    os.utime(run.spec_path, (0, 0))
    assert (summarise(run).cause, summarise(run).why) == ("engine_killed", "its engine never started")


@pytest.mark.parametrize(
    ("texts", "cause"), [(LOST, "device_lost"), (DRIVER, "driver_fault"), (OURS, None)], ids=["lost", "driver", "ours"]
)
def test_words_about_the_gpu_are_known(texts: list[str], cause: str | None):
    for text in texts:
        found = gpu_fault(text)
        assert (found and found.cause) == cause, text
        assert ending_of_error(RuntimeError(text)).cause == (cause or "fault")
        behind = Problem("model", f"cannot be loaded: {text}", "Look.")
        assert ending_of_error(behind).cause == "input", "a problem's own words may quote anything"


def raise_from(error: Exception, cause: Exception) -> Exception:
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_behind_whatever_is_said_of_it(number: int):
    full = OSError(number, "no room", "/runs/a/data/rows")
    assert ending_of_error(full).why == "a file could not be written, since the disk is full (/runs/a/data/rows)"
    try:
        try:
            raise full
        except OSError as error:
            raise disk_problem(Path("/runs"), error) from None
    except Problem as problem:
        assert ending_of_error(problem).cause == "disk_full"
    assert ending_of_error(raise_from(RuntimeError("could not write"), full)).cause == "disk_full"
    assert ending_of_error(OSError(errno.EIO, "Input/output error")).cause == "fault"


def filling_task(_: Any) -> Callable[[str], str]:
    def fill(item: str) -> str:
        try:
            raise OSError(errno.ENOSPC, "no room", item)
        except OSError as error:
            raise disk_problem(Path("/cache"), error) from None

    return fill


def test_a_full_disk_is_known_behind_what_a_helper_says_of_it():
    with pytest.raises(Problem) as raised:
        list(run_crew(f"{__name__}:filling_task", None, ["/cache/prepared/a"], workers=1))
    assert ending_of_error(raised.value).cause == "disk_full"


def test_a_fault_of_ours_is_told_with_its_place_and_no_traceback(ledger: Ledger, capfd: pytest.CaptureFixture[str]):
    channel = MemoryChannel()
    try:
        {}["no such layer"]
    except KeyError as error:
        assert worker._fail(channel, error) == worker.EXIT_FAULT  # type: ignore[arg-type]
    (told,) = channel.events
    ending = told_ending(told)
    assert (ending.outcome, ending.cause) == ("failed", "fault")
    assert re.fullmatch(r"finetui itself failed: KeyError \(line \d+ of test_endings.py\)", ending.why)
    assert "Traceback" in capfd.readouterr().err, "the log has the whole of it"
    ledger.injected("fault of ours")


def test_what_a_worker_cannot_have_ended_with_is_a_fault_of_ours():
    assert told_ending({"outcome": "won"}).cause == told_ending({}).cause == "fault"
    assert told_ending({"outcome": "stopped", "cause": "bored", "why": "asked"}) == Ending(
        "stopped", "stopped", "asked"
    )


XID_LOST = "4,1,2,-;NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID_FAULT = "4,1,2,-;NVRM: Xid (PCI:0000:01:00): 31, pid=41, name=python, Ch 00000008, intr 00000000. MMU Fault"


def test_the_kernels_log_makes_the_ending_exact_where_it_may_be_read(tmp_path: Path):
    path = tmp_path / "kmsg"
    path.write_text(XID_LOST + "\n")
    log = KernelLog(path)
    assert log.xids() == [], "what was before is none of this attempt's"
    with path.open("a") as file:
        print("6,3,4,-;usb 1-1: new device", XID_FAULT, XID_LOST, sep="\n", file=file)
    xids = log.xids()
    assert [(each.number, each.pid) for each in xids] == [(31, 41), (79, None)]
    fault = Ending("failed", "driver_fault", "the GPU's driver failed: unspecified launch failure")
    lost = with_xids(fault, xids, 41)
    assert (lost.cause, lost.why) == (
        "device_lost",
        f"{fault.why} (kernel log: Xid 79, GPU has fallen off the bus.)",
    )
    crashed = Ending("failed", "worker_crashed", "the trainer crashed in native code (SIGSEGV)")
    assert with_xids(crashed, xids[:1], 41).cause == "driver_fault"
    assert with_xids(crashed, xids[:1], 42) == crashed, "another process's"
    stopped = Ending("stopped", "stopped", "stopped on request")
    assert with_xids(stopped, xids, 41) == stopped
    log.close()
    assert log.xids() == KernelLog(tmp_path / "none").xids() == []
