"""What a run tells, and keeps for later estimates, of the memory it takes."""

from __future__ import annotations

from engine.fit.memory_rows import Expected, predict_for_tokens, remember
from engine.run.sizes import size_text
from engine.train.probe import take_trial_step
from engine.train.setup import Setup
from engine.train.talk import Talk


def try_a_step(setup: Setup, expected: Expected, talk: Talk) -> None:
    """Measure what a step takes, before anything is learnt, and tell how that compares with what was `expected`."""
    talk.phase("preparing", "a trial step, to measure the memory it takes")
    trial = take_trial_step(setup)
    prediction = predict_for_tokens(expected, trial.tokens, steps_only=True)
    talk.send(
        "probe",
        predicted=prediction.believed_bytes,
        measured=trial.process_bytes,
        allocated=trial.allocated_bytes,
        seconds=trial.seconds,
        tokens=trial.tokens,
    )
    if trial.process_bytes is None:
        return
    remember(
        expected,
        prediction,
        process_bytes=trial.process_bytes,
        allocated_bytes=trial.allocated_bytes,
        reserved_bytes=trial.reserved_bytes,
    )
    off = trial.process_bytes / prediction.believed_bytes - 1
    if abs(off) > expected.estimate.error_share:
        took, believed = size_text(trial.process_bytes), size_text(prediction.believed_bytes)
        less_or_more = "more" if off > 0 else "less"
        text = f"the trial step took {took}, {abs(off):.0%} {less_or_more} than the {believed} expected"
        talk.send("note", text=f"{text}; later estimates on this device follow it")


def tell_memory(setup: Setup, talk: Talk) -> None:
    """Tell what the process took so far, by component."""
    measured = setup.memory.components(setup.model, setup.parameters.values(), setup.optimizer)
    talk.send("memory", measured=measured, peak_bytes=setup.memory.peak_bytes())


def remember_memory(setup: Setup, expected: Expected) -> None:
    """Keep what the run took for later estimates."""
    heaviest = setup.objective.collate(setup.plan.heaviest(padded=setup.forward.padded))
    allocated, reserved = setup.memory.allocator_peaks()
    remember(
        expected,
        predict_for_tokens(expected, heaviest.input_ids.numel()),
        process_bytes=setup.memory.peak_bytes(),
        allocated_bytes=allocated,
        reserved_bytes=reserved,
    )
