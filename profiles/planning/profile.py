"""What a plan consists of: profiles, each one way to train with what it costs, ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.learnt import Learnt
from profiles.memory import MemoryEstimate
from profiles.planning.frame import Job
from profiles.planning.settings_of_spec import nested
from profiles.problem import Problem, printable
from profiles.settings import Method, Settings
from profiles.speed import Rates, SpeedEstimate

RECIPE_PREFIX = "recipe: "


@dataclass(frozen=True)
class Profile:
    """One way to train, priced. Sizes in bytes.

    `values` holds a value per RunSpec field ("train.micro_batch"), hyperparameters included, and `reasons` a sentence
    for each. `seconds` is the whole training's time, None when the data are not known; `missing` says what a profile
    that does not fit would need, and is empty for one that does.
    """

    name: str
    settings: Settings
    values: Mapping[str, Any]
    reasons: Mapping[str, str]
    estimate: MemoryEstimate
    budget_bytes: int
    speed: SpeedEstimate
    seconds: float | None
    trainable_parameters: int
    why: tuple[str, ...]
    missing: str = ""
    titles: tuple[str, ...] = ()
    """All that it won, its name first: ("best quality", "fastest")."""

    @property
    def fits(self) -> bool:
        return not self.missing

    @property
    def method(self) -> Method:
        return self.settings.method

    @property
    def peak_bytes(self) -> int:
        return self.estimate.peak_bytes

    @property
    def headroom_bytes(self) -> int:
        """What stays of the budget at the peak; negative when it does not fit."""
        return self.budget_bytes - self.estimate.peak_bytes

    def as_dict(self) -> dict[str, Any]:
        """An entry of `finetui fit --json`."""
        return {
            "name": self.name,
            "method": self.method,
            "fits": self.fits,
            "peak_bytes": self.peak_bytes,
            "budget_bytes": self.budget_bytes,
            "breakdown": dict(self.estimate.components),
            "settings": nested(self.values),
            "trainable_parameters": self.trainable_parameters,
            "tokens_per_second": self.speed.tokens_per_second,
            "seconds": self.seconds,
            "why": list(self.why),
        }


@dataclass(frozen=True)
class Plan:
    """The ranked profiles: those that fit, then one per method that does not, then recipes. Sizes in bytes."""

    geometry: Geometry
    hardware: Hardware
    job: Job
    profiles: tuple[Profile, ...]
    budget_bytes: int
    """Of the first profile: free memory, less what others may take, less the estimate's error."""
    free_bytes: int
    points_priced: int
    """Times the memory formulas were asked."""
    grid_points: int
    """Points of the grid that these decide: variants x recompute modes x micro-batches x loss chunks x lengths."""
    seconds: float
    notes: tuple[str, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)
    rates: Rates | None = None
    learnt: Learnt | None = None

    def find(self, name: str) -> Profile:
        """The profile of that name, title or method. Raises Problem with the names there are."""
        wanted = name.strip().casefold()
        for names in (
            lambda each: (each.name,),
            lambda each: each.titles,
            lambda each: (each.name.removeprefix(RECIPE_PREFIX),),
            lambda each: (each.method,),
        ):
            for profile in self.profiles:
                if wanted in (known.casefold() for known in names(profile)):
                    return profile
        known = ", ".join(dict.fromkeys(name for each in self.profiles for name in (each.name, *each.titles)))
        raise Problem("profile", f"there is none called {printable(repr(name))}", f"Choose one of: {known}.")
