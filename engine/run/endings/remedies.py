"""What to do about the end of a run, in one sentence for each cause."""

from __future__ import annotations

from engine.run.checkpoints.manifest import newest_step
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Cause

BACK_IN_LINE = "Put it back in its place with `finetui resume --interrupted`."
"""For a run whose engine ended while it waited in the queue, and no person wanted that."""

_LEANER = "start a new run with a shorter data.sequence_length, a lower method.rank or the method qlora"

# {resume}, {Resume}: "go on from step 400 with `finetui resume NAME`"; {log}: where the run's libraries print.
_REMEDIES: dict[Cause, str] = {
    "finished": "",
    "stopped": "{Resume}.",
    "gpu_memory": f"Free GPU memory that other programs hold and {{resume}}, or {_LEANER}.",
    "host_memory": f"Free RAM that other programs hold and {{resume}}, or {_LEANER}.",
    "disk_full": "Free some space on that disk (`df -h` shows which is full), then {resume}.",
    "not_finite": "Lower the learning rate to a third: `finetui resume {name} --learning-rate RATE`.",
    "device_lost": "Look for the GPU with `nvidia-smi`, restart the machine if it is missing there, then {resume} "
    "(with --anyway on another device).",
    "driver_fault": "Restart the machine or have the GPU reset, then {resume}.",
    "machine_restarted": "{Resume}.",
    "engine_killed": "{Resume}.",
    "worker_killed": "See with `dmesg` or the machine's other users what ends it, then {resume}.",
    "worker_crashed": "Check the libraries with `finetui doctor`, see {log} for where it crashed, then {resume}.",
    "unsealed": "Have done what `finetui doctor` says of the seal, then {resume}; or do without: "
    "`finetui resume {name} --seal best`.",
    "changed": "Undo the change, or go on all the same with `finetui resume {name} --anyway`.",
    "input": "Correct that, then {resume}.",
    "fault": "This is a mistake of finetui's own: keep {log} to report it; {resume}.",
}


def remedy_for(cause: Cause, run: RunDirectory) -> str:
    """What to do about a run that ended for `cause`; empty where there is nothing to do."""
    resume = how_to_go_on(run.name, newest_step(run.checkpoints))
    again = resume[0].upper() + resume[1:]
    return _REMEDIES[cause].format(resume=resume, Resume=again, name=run.name, log=run.log_path)


def flooded_remedy(run: RunDirectory) -> str:
    """For a run whose trainer said more than any training has to say."""
    resume = how_to_go_on(run.name, newest_step(run.checkpoints))
    return (
        f"Look into {run.events_path} and {run.log_path} for what it repeats, and report that where the trainer is "
        f"finetui's own; then {resume}."
    )


def how_to_go_on(name: str, learnt_to: int | None, options: str = "") -> str:
    """ "go on from step 400 with `finetui resume NAME`", for a run whose newest checkpoint is of step `learnt_to`."""
    start = f"go on from step {learnt_to:,}" if learnt_to else "begin again"
    return f"{start} with `finetui resume {name}{options}`"
