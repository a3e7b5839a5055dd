"""What the tests of New run and Chat give those screens instead of the engine, and an app that holds one screen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fake_seal import WHOLE
from plan_fakes import FakePlanner, made_plan
from textual import events
from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

import tui
from engine.data.preview import preview
from engine.run.surviving.session_limits import Caution
from engine.run.waiting.room import Room
from engine.seal.ability import Ability
from engine.serve.session import ChatModel, Chunk
from engine.spec import RunSpec, parse_spec
from profiles.geometry import Geometry, ModelReport
from profiles.memory import MemoryEstimate
from profiles.planner import Job, Plan
from profiles.problem import Problem
from profiles.shapes.model_config import ModelConfig
from profiles.shapes.safetensors_header import Tensor
from tui.app import FinetuiApp
from tui.terminal import Terminal
from tui.theme import NO_COLOR_THEME, THEME, look_for
from tui.typed_ahead import TypedAheadApp
from tui.widgets.new_run.draft import Draft
from tui.widgets.new_run.places import Place
from tui.widgets.new_run.sources import Sources

MIB, GIB = 1024**2, 1024**3
PLAIN_TERMINAL = Terminal(no_color=True, ascii=True, utf8=False)
MODELS = Path("/home/ada/models")
DATA = Path("/home/ada/data")
HOLD_SECONDS = 300
"""Until a thread gives up that a test holds: as long as a loaded machine may take over what the test does meanwhile."""
MOST_LOOKS = 6000
"""At a screen that never comes to what is awaited. No seconds: a machine may pass many of them without this process."""


class ScreenApp(TypedAheadApp):
    """One screen with the theme and the style sheet of the real app, and what it asks of that app."""

    CSS_PATH = Path(tui.__file__).with_name("app.tcss")

    def __init__(self, screen: Screen, terminal: Terminal | None = None):
        self.terminal = terminal or Terminal()
        self.look = look_for(self.terminal)
        super().__init__(ansi_color=True if self.terminal.no_color else None)
        self.animation_level = "none"
        self.register_theme(THEME)
        self.theme = NO_COLOR_THEME if self.terminal.no_color else THEME.name
        self.shown = screen
        self.opened: list[Any] = []
        self.copied: list[str] = []

    def on_mount(self) -> None:
        self.push_screen(self.shown)

    def open_run(self, run: Any) -> None:
        self.opened.append(run)

    def copy_to_clipboard(self, text: str) -> None:
        self.copied.append(text)


async def until(pilot: Pilot, reached: Callable[[], Any]) -> None:
    """Let the app go on until `reached` says so; the test fails where it never does."""
    for _ in range(MOST_LOOKS):
        if reached():
            await pilot.pause()
            return
        await pilot.pause()
        await asyncio.sleep(0.01)
    raise AssertionError(f"never reached; the screen shows:\n{screen_text(pilot.app)}")


async def read_no_more(pilot: Pilot) -> None:
    """Reading is over, and what was read is shown: what a test shows or draws afterwards stays."""
    follower = cast(FinetuiApp, pilot.app).follower
    assert follower is not None
    follower.close()
    follower.join()
    await pilot.pause()


async def press_at_once(pilot: Pilot, *keys: str) -> None:
    """Press keys before the app gets to the first of them."""
    for key in keys:
        event = events.Key(key, {"enter": "\r", "slash": "/"}.get(key, key if len(key) == 1 else None))
        event.set_sender(pilot.app)
        pilot.app.post_message(event)
    await pilot.pause()


def screen_text(app: App) -> str:
    """What a person reads on the screen."""
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def model_report(path: Path) -> ModelReport:
    """A small Llama in `path`; a folder called broken holds what cannot be trained."""
    if path.name == "broken":
        fix = "Choose the original model in safetensors format."
        return ModelReport(path, None, None, False, (Problem(str(path), "holds only GGUF files", fix),), ())
    return ModelReport(path, geometry(path), "tokenizer.json", True, (), ())


def geometry(path: Path) -> Geometry:
    config = ModelConfig(path / "config.json", "llama", "LlamaForCausalLM", 4, 192, 512, 6, 2, 32, 4096, True, 1024, 0)
    return Geometry(path, config, True, {"model.embed_tokens.weight": Tensor((4096, 640), "BF16")})


@dataclass(frozen=True)
class FakeProposal:
    """The parts of engine.propose.Proposal that the screens read."""

    spec: RunSpec
    reasons: Mapping[str, str]
    estimate: MemoryEstimate
    budget_bytes: int
    geometry: Geometry

    @property
    def fits(self) -> bool:
        return self.estimate.peak_bytes <= self.budget_bytes


REASONS = {
    "method.kind": "lora fits with 13.8 GiB to spare",
    "data.sequence_length": "the longest row is about 300 tokens",
    "optimizer.learning_rate": "usual for LoRA; full training takes a tenth",
    "train.micro_batch": "the largest that fits, up to 8",
}


@dataclass
class FakeEngine:
    """Answers for everything behind New run and remembers what it was asked."""

    places: list[Place] = field(default_factory=list)
    files: list[Place] = field(default_factory=list)
    row_file: Path | None = None
    """The file that every data path is read from."""
    tried: dict[str, str] = field(default_factory=dict)
    """By name of a data file: what its reader tried to get out."""
    budget_bytes: int = int(14.6 * GIB)
    launch_problem: Problem | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    launched: list[RunSpec] = field(default_factory=list)
    hold: dict[int, threading.Event] = field(default_factory=dict)
    """By rank: an event that the answer for it waits for."""
    planner: FakePlanner = field(default_factory=lambda: FakePlanner(job=Job(4812, 1_900_000, 1900, 3)))
    gathered: int = 0
    """How often model and data were read."""
    plan_hold: threading.Event | None = None
    """An event that the plan waits for."""
    room: Room | None = None
    """What the memory is like at the launch; None for free."""
    cautions: list[Caution] = field(default_factory=list)
    """What would end a run that is started now."""
    ability: Ability = WHOLE
    """What the machine can hold of a seal."""
    waited: list[bool] = field(default_factory=list)
    """Of each launch, whether it was to wait in the queue."""

    def sources(self) -> Sources:
        return Sources(
            inspect_model=model_report,
            preview=lambda path: replace(preview(self.row_file or path), tried=self.tried.get(path.name, "")),
            gather=self.gather,
            plan_for=self.plan_for,
            propose=self.propose,
            room=lambda spec: self.room or Room("GPU 0", 8 * GIB, 20 * GIB, 18 * GIB, 24 * GIB, ()),
            cautions=lambda: self.cautions,
            ability=lambda: self.ability,
            launch=self.launch,
            model_places=lambda: self.places,
            data_places=lambda: self.files,
            plan=self.planner.sources(),
        )

    def gather(self, draft: Draft) -> str:
        self.gathered += 1
        return f"{draft.model} and {draft.train}"

    def plan_for(self, draft: Draft) -> Plan:
        assert self.plan_hold is None or self.plan_hold.wait(HOLD_SECONDS)
        assert draft.gathered is not None and draft.model is not None
        return made_plan(geometry(draft.model), self.planner.hardware(), self.planner.job)

    def propose(self, draft: Draft) -> FakeProposal:
        self.asked.append(dict(draft.overrides))
        values: dict[str, Any] = {
            "name": draft.name or "intake",
            "model": {"path": str(draft.model)},
            "data": {"train": [str(path) for path in draft.train], "sequence_length": 512},
            "train": {"epochs": 3, "micro_batch": 8, "gradient_accumulation": 2},
            "evaluation": {"every_steps": 20},
            "method": {"kind": "qlora" if draft.profile == "fastest" else "lora"},
        }
        if draft.held_out is not None:
            values["data"]["held_out"] = str(draft.held_out)
        for section, changes in draft.nested_asked.items():
            values.setdefault(section, {}).update(changes)
        spec = parse_spec(values, "proposal")
        if (event := self.hold.get(spec.method.rank)) is not None:
            assert event.wait(HOLD_SECONDS)
        if spec.data.sequence_length > 2048:
            what = f"is {spec.data.sequence_length:,}, and the model reads at most 2,048 tokens"
            raise Problem("data.sequence_length", what, "Choose at most 2,048.")
        assert draft.model is not None
        activations = spec.train.micro_batch * spec.data.sequence_length * MIB // 24
        parts = {"weights": 11 * MIB, "adapters": spec.method.rank * MIB // 8, "gradients": 2 * MIB}
        parts |= {"optimizer": 4 * MIB, "activations": activations, "loss": 18 * MIB, "context": 640 * MIB}
        estimate = MemoryEstimate(parts, "backward", 0.15, ())
        return FakeProposal(spec, REASONS, estimate, self.budget_bytes, geometry(draft.model))

    def launch(self, spec: RunSpec, wait: bool) -> str:
        if self.launch_problem is not None:
            raise self.launch_problem
        self.waited.append(wait)
        self.launched.append(spec)
        return f"the run {spec.name}"


@dataclass(frozen=True)
class FakeRun:
    name: str = "20260105T080000Z-intake"
    spec_name: str = "intake"


@dataclass
class FakeSession:
    """A chat session whose answers a test hands out piece by piece with `say`."""

    problem: Problem | None = None
    loading: threading.Event = field(default_factory=threading.Event)
    questions: list[dict[str, list[dict[str, str]]]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    closed: bool = False
    _pieces: list[Chunk | Problem] = field(default_factory=list)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def start(self, progress: Callable[[str], None]) -> ChatModel:
        progress("loading the base model")
        assert self.loading.wait(HOLD_SECONDS)
        if self.problem is not None:
            raise self.problem
        return ChatModel("cpu", "fp32", (), 1024, True)

    def ask(self, messages_by_side, max_new_tokens: int, temperature: float) -> Iterator[Chunk]:
        self.questions.append(messages_by_side)
        self.options.append({"max_new_tokens": max_new_tokens, "temperature": temperature})
        return self._chunks(set(messages_by_side))

    def _chunks(self, open_sides: set[str]) -> Iterator[Chunk]:
        while open_sides:
            with self._more:
                assert self._more.wait_for(lambda: self._pieces or self.closed, timeout=HOLD_SECONDS)
                if self.closed:
                    return
                piece = self._pieces.pop(0)
            if isinstance(piece, Problem):
                raise piece
            if piece.done:
                open_sides.discard(piece.side)
            yield piece

    def say(self, side, text: str, ending=None, tokens: int = 0, speed: float | None = 40.0) -> None:
        """The next piece of an answer, the last one where it has an ending."""
        self._put(Chunk(side, text, ending is not None, speed, tokens, ending))

    def fail(self, problem: Problem) -> None:
        self._put(problem)

    def cancel(self) -> None:
        self.cancelled += 1

    def close(self) -> None:
        with self._more:
            self.closed = True
            self._more.notify_all()

    def _put(self, piece: Chunk | Problem) -> None:
        with self._more:
            self._pieces.append(piece)
            self._more.notify_all()
