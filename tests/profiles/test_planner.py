"""What the planner offers: always within the memory there is, never worse for more of it, sensible for known shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.recipes import check_recipe, read_recipe, usable_recipes
from profiles.geometry import Geometry, geometry_of_config
from profiles.hardware import Cpu, Disk, Gpu, Hardware, Ram
from profiles.memory import COMPONENTS
from profiles.model_catalogue import catalogue_geometry
from profiles.planner import Job, Plan, Profile, ladder, plan, price, price_recipe
from profiles.planning.frame import Frame
from profiles.planning.quality import Variant, quality
from profiles.planning.recipes import built_in_recipes
from profiles.planning.search import Pricing, Search
from profiles.planning.settings_of_spec import settings_from
from profiles.problem import Problem
from profiles.shapes.model_config import parse_config
from profiles.speed import rates_of

GIB = 1 << 30
METHODS = {"full", "partial", "lora", "qlora"}
CHATS = Job(rows=4_812, tokens=1_900_000, longest_tokens=1_900, usual_tokens=1_200, answer_tokens=300)


def machine(gib: float, gpu: bool = True, used_gib: float = 0.0, ram_gib: float = 256) -> Hardware:
    """A host with `gib` in all: of one bf16 GPU, else of RAM."""
    total, used = int(gib * GIB), int(used_gib * GIB)
    ram = Ram(int(ram_gib * GIB), int(ram_gib * GIB)) if gpu else Ram(total, total - used)
    card = Gpu(0, "GPU-a", "NVIDIA GeForce RTX 4090", total, used, (8, 9), True, None, None, None, ())
    return Hardware("host", Cpu("cpu", 8, 16, False), ram, (card,) if gpu else (), Disk(Path("/"), GIB, GIB), ())


def shape(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int, context: int) -> Geometry:
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }
    geometry = geometry_of_config(Path("shape"), parse_config(Path("config.json"), values))
    assert geometry is not None
    return geometry


@st.composite
def shapes(draw: st.DrawFn) -> Geometry:
    kv_heads = draw(st.sampled_from((1, 2, 8)))
    heads = kv_heads * draw(st.sampled_from((1, 2, 4)))
    return shape(
        hidden=heads * draw(st.sampled_from((32, 64, 128))),
        layers=draw(st.integers(1, 80)),
        heads=heads,
        kv_heads=kv_heads,
        inner=draw(st.sampled_from((256, 2_816, 11_008, 28_672))),
        vocabulary=draw(st.sampled_from((300, 32_000, 151_936))),
        context=draw(st.sampled_from((512, 4_096, 32_768, 131_072))),
    )


@st.composite
def machines(draw: st.DrawFn) -> Hardware:
    gib = draw(st.floats(1, 192))
    return machine(gib, draw(st.booleans()), used_gib=gib * draw(st.sampled_from((0, 0.1, 0.7))))


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    rows = draw(st.sampled_from((0, 30, 2_000, 100_000)))
    mean = draw(st.integers(20, 9_000))
    return Job(rows, rows * mean, 3 * mean, None, 2 * mean, mean // 2) if rows else Job()


def searched(found: Plan) -> list[Profile]:
    return [profile for profile in found.profiles if not profile.name.startswith("recipe: ")]


def by_title(found: Plan, title: str) -> Profile | None:
    return next((profile for profile in found.profiles if profile.fits and title in profile.titles), None)


def rows_per_step(profile: Profile) -> int:
    return profile.settings.micro_batch * profile.settings.gradient_accumulation


@settings(max_examples=30, deadline=None)
@given(shapes(), machines(), jobs())
def test_nothing_offered_exceeds_the_budget_and_every_method_is_told_of(
    geometry: Geometry, hardware: Hardware, job: Job
) -> None:
    found = plan(geometry, hardware, job, recipes=built_in_recipes())
    profiles = searched(found)
    for profile in found.profiles:
        assert tuple(profile.estimate.components) == COMPONENTS
        assert profile.budget_bytes < found.free_bytes or found.free_bytes < GIB
        if profile.fits:
            # A prediction that is too low by all of its error still leaves something to others.
            assert profile.peak_bytes <= profile.budget_bytes
            assert profile.peak_bytes * (1 + profile.estimate.error_share) < found.free_bytes
        assert profile.fits == (not profile.missing)
        assert profile.why and profile.speed.tokens_per_second > 0
        assert (profile.seconds is None) == (job.rows == 0)
        assert settings_from(profile.values, geometry, hardware) == profile.settings
        assert set(profile.reasons) <= set(profile.values)
    fits = [profile.fits for profile in profiles]
    assert fits == sorted(fits, reverse=True)
    assert {profile.method for profile in profiles} == METHODS
    offered = [profile.settings for profile in profiles if profile.fits]
    assert len(set(offered)) == len(offered)
    of_one_length = {rows_per_step(each) for each in profiles if each.settings.sequence_length == _length(found)}
    assert len(of_one_length) == 1  # whatever fits at once, a step learns from the same rows


def _length(found: Plan) -> int:
    """The length proposed from the data, which all but the longest context have."""
    return min(profile.settings.sequence_length for profile in searched(found))


@settings(max_examples=30, deadline=None)
@given(shapes(), st.floats(2, 100), st.floats(1.01, 3), st.booleans(), jobs())
def test_more_memory_is_never_worse(geometry: Geometry, gib: float, times: float, gpu: bool, job: Job) -> None:
    # Nothing in use: what others take must not grow with the card.
    less, more = plan(geometry, machine(gib, gpu), job), plan(geometry, machine(gib * times, gpu), job)
    for title, worth in (
        ("best quality", lambda profile: _quality(geometry, profile, job, less)),
        ("longest context", lambda profile: profile.settings.sequence_length),
        ("leanest", lambda profile: -profile.peak_bytes),
        # Speeds within 5 % of each other count as one, and the better quality among them wins.
        ("fastest", lambda profile: profile.speed.tokens_per_second * 1.0501),
    ):
        before, after = by_title(less, title), by_title(more, title)
        if before is not None:
            assert after is not None, title
            lowest = before.speed.tokens_per_second if title == "fastest" else worth(before)
            assert worth(after) >= lowest, title
    fit = {profile.method for profile in less.profiles if profile.fits}
    assert fit <= {profile.method for profile in more.profiles if profile.fits}


def _quality(geometry: Geometry, profile: Profile, job: Job, found: Plan) -> float:
    s = profile.settings
    variant = Variant(s.method, s.optimizer, s.rank, s.targets, s.trained_layers, s.double_quantisation)
    best = max(each.settings.rank for each in found.profiles)
    return quality(geometry, variant, job.tokens, best)


ASKED: dict[str, tuple[Any, ...]] = {
    "method.kind": ("full", "partial", "lora", "qlora"),
    "method.rank": (4, 24, 256),
    "method.targets": (("q_proj", "v_proj"), "all-linear"),
    "method.trained_layers": (1,),
    "optimizer.kind": ("adamw", "adamw_8bit", "adafactor"),
    "optimizer.learning_rate": (1e-5,),
    "train.micro_batch": (1, 3, 8),
    "train.gradient_accumulation": (1, 5),
    "train.gradient_checkpointing": (0, 1, 5),
    "train.loss_chunk": (77,),
    "train.epochs": (0.5,),
    "data.sequence_length": (100, 500),
    "data.packing": (False,),
    "model.dtype": ("bf16", "fp32"),
    "evaluation.answers": (0, 3),
    "evaluation.rows": (0, 70),
}


asked_values = st.fixed_dictionaries({}, optional={name: st.sampled_from(each) for name, each in ASKED.items()})


@settings(max_examples=30, deadline=None)
@given(shapes(), machines(), jobs(), asked_values)
def test_what_was_asked_for_stays(geometry: Geometry, hardware: Hardware, job: Job, asked: dict[str, Any]) -> None:
    found = plan(geometry, hardware, job, asked)
    changed = {"method.rank": 8, "train.micro_batch": 2}
    for profile, fixed in [*((each, asked) for each in searched(found)), (price(found, changed), {**asked, **changed})]:
        assert {name: profile.values[name] for name in fixed} == fixed
        assert settings_from(profile.values, geometry, hardware) == profile.settings
        assert all(profile.reasons[name] == "as you set it" for name in fixed)


@pytest.mark.parametrize(
    ("asked", "fix"),
    [
        ({"data.sequence_length": 513}, "512 or less"),
        ({"method.kind": "partial", "method.trained_layers": 3}, "2 or less"),
        ({"method.targets": ("query",)}, "q_proj"),
        ({"train.offload_checkpoints": True, "train.gradient_checkpointing": 0}, "gradient_checkpointing to 1"),
    ],
)
def test_what_the_model_cannot_have_is_refused(asked: dict[str, Any], fix: str) -> None:
    with pytest.raises(Problem) as raised:
        plan(shape(256, 2, 4, 4, 512, 300, 512), machine(8), Job(), asked)
    assert raised.value.where in asked and fix in raised.value.fix


def test_a_repricing_keeps_the_rows_of_a_step_and_lets_the_rate_follow_the_method() -> None:
    found = plan(catalogue_geometry("Qwen/Qwen3-8B"), machine(48), CHATS)
    best = found.profiles[0]
    for micro_batch in (1, 2, 3, 6):
        priced = price(found, {"method.kind": "lora", "train.micro_batch": micro_batch})
        assert priced.settings.micro_batch == micro_batch and rows_per_step(priced) == rows_per_step(best)
    lora, full = price(found, {"method.kind": "lora"}), price(found, {"method.kind": "full"})
    rate = "optimizer.learning_rate"
    assert full.values[rate] == pytest.approx(lora.values[rate] / 10)
    assert lora.settings == best.settings and not full.fits and "Full tuning needs" in full.why[0]


def test_rate_epochs_and_batch_follow_the_objective() -> None:
    geometry = catalogue_geometry("Qwen/Qwen3-8B")
    rate, epochs = "optimizer.learning_rate", "train.epochs"
    plain = plan(geometry, machine(48), CHATS, recipes=built_in_recipes()).profiles[0]
    for objective, share, most in (
        ("dpo", 1 / 40, 2),
        ("kto", 1 / 40, 1),
        ("orpo", 1 / 3, 3),
        ("classification", 1, 3),
    ):
        found = plan(geometry, machine(48), replace(CHATS, objective=objective), recipes=built_in_recipes())
        best = found.profiles[0]
        assert best.values["objective.kind"] == best.settings.objective == objective
        assert best.values[rate] == pytest.approx(plain.values[rate] * share, rel=0.05)
        assert best.values[epochs] <= most
        assert not any(profile.name.startswith("recipe: ") for profile in found.profiles)
        # Asking for it is the same as having data for it.
        assert (
            plan(geometry, machine(48), CHATS, {"objective.kind": objective}).profiles[0].values[rate]
            == best.values[rate]
        )
    pairs = Job(rows=400, tokens=40_000, longest_tokens=200, usual_tokens=150, objective="embedding")
    for rows in (400, 30):
        found = plan(geometry, machine(48), replace(pairs, rows=rows, tokens=100 * rows))
        step_tokens = rows_per_step(found.profiles[0]) * found.profiles[0].settings.sequence_length
        assert step_tokens >= 0.8 * 100 * min(64, rows)
    assert "objective.kind" not in plain.values


def test_spare_memory_buys_speed_and_quality() -> None:
    geometry = catalogue_geometry("Qwen/Qwen3-8B")
    best = [plan(geometry, machine(gib), CHATS).profiles[0] for gib in (12, 24, 48, 96)]
    assert [each.method for each in best] == ["qlora", "lora", "lora", "lora"]
    assert best[0].settings.gradient_checkpointing == 1 and best[-1].settings.gradient_checkpointing == 0
    speeds = [each.speed.tokens_per_second for each in best[1:]]
    assert speeds == sorted(speeds) and best[-1].settings.micro_batch >= best[1].settings.micro_batch
    # Data that no adapter of a small model holds are for every weight.
    small = shape(512, 8, 8, 8, 1_408, 32_000, 2_048)
    assert plan(small, machine(24), replace(CHATS, tokens=400_000_000)).profiles[0].method == "full"
    assert plan(small, machine(24), CHATS).profiles[0].method == "lora"


def test_a_method_that_does_not_fit_says_what_would_bring_it_nearer() -> None:
    geometry = catalogue_geometry("Qwen/Qwen3-8B")
    full = plan(geometry, machine(24), CHATS).find("full")
    plain = price(
        plan(geometry, machine(2_000), CHATS),
        {
            "method.kind": "full",
            "optimizer.kind": "adamw",
            "train.micro_batch": 1,
            "train.gradient_checkpointing": 0,
        },
    )
    needed, reached = f"{plain.peak_bytes / GIB:.0f} GiB", f"{full.peak_bytes / GIB:.1f} GiB"
    assert full.missing.startswith(f"full tuning needs {needed}; ") and f" to {reached}, " in full.missing
    assert "checkpointing" in full.missing and full.headroom_bytes < 0


def test_ram_counts_too() -> None:
    """The weights pass through RAM, and what is offloaded stays there."""
    found = plan(catalogue_geometry("meta-llama/Llama-3.1-70B"), machine(192, ram_gib=2), CHATS)
    assert not any(profile.fits for profile in found.profiles)
    assert "RAM" in found.profiles[0].missing


# Rows of 2,048 tokens on a card with nothing else on it: the methods that fit, and those that are within the error of
# the estimate. Weights alone take 15.3, 61 and 131 GiB in bf16, and full tuning keeps fp32 weights and their gradients:
# 8 bytes a parameter before any optimizer state.
LADDERS: dict[str, dict[int, tuple[set[str], set[str]]]] = {
    "Qwen/Qwen3-8B": {
        8: (set(), {"qlora"}),
        12: ({"qlora"}, set()),
        24: ({"lora", "qlora"}, {"partial"}),
        48: ({"partial", "lora", "qlora"}, set()),
        80: ({"partial", "lora", "qlora"}, {"full"}),
        192: ({"full", "partial", "lora", "qlora"}, set()),
    },
    "Qwen/Qwen3-32B": {
        8: (set(), set()),
        12: (set(), set()),
        24: ({"qlora"}, set()),
        48: ({"qlora"}, set()),
        80: ({"lora", "qlora"}, set()),
    },
    "meta-llama/Llama-3.1-70B": {
        8: (set(), set()),
        12: (set(), set()),
        24: (set(), set()),
        48: ({"qlora"}, set()),
        80: ({"qlora"}, set()),
    },
}


@pytest.mark.parametrize("name", LADDERS)
def test_ladders_of_known_shapes(name: str) -> None:
    geometry = catalogue_geometry(name)
    for gib, (surely, perhaps) in LADDERS[name].items():
        rungs = ladder(geometry, machine(gib, ram_gib=512))
        fit = {each.method for each in rungs if each.fits}
        assert surely <= fit <= surely | perhaps, f"{gib} GiB: {fit}"
        # The bf16 weights of the base are the least that any method but qlora holds.
        assert all(each.peak_bytes > 2 * geometry.parameters for each in rungs if each.method != "qlora")


def test_the_json_is_as_scripts_know_it() -> None:
    found = plan(catalogue_geometry("Qwen/Qwen3-0.6B"), machine(16, gpu=False), CHATS)
    for profile in found.profiles:
        assert list(profile.as_dict()) == [
            "name", "method", "fits", "peak_bytes", "budget_bytes", "breakdown", "settings", "trainable_parameters",
            "tokens_per_second", "seconds", "why",
        ]  # fmt: skip
        assert sum(profile.as_dict()["breakdown"].values()) == profile.peak_bytes
        assert profile.as_dict()["settings"]["train"]["micro_batch"] == profile.settings.micro_batch
    assert found.find("Best Quality") is found.profiles[0] and found.find("qlora").method == "qlora"
    with pytest.raises(Problem) as raised:
        found.find("quickest")
    assert "best quality" in raised.value.fix


@pytest.mark.parametrize("recipe", built_in_recipes(), ids=lambda recipe: recipe.name)
def test_every_built_in_recipe_is_whole_and_gives_a_profile(recipe: Any) -> None:
    assert check_recipe(recipe) is recipe
    assert recipe.description and recipe.source and recipe.when
    geometry = catalogue_geometry("Qwen/Qwen3-0.6B")
    found = price_recipe(plan(geometry, machine(80), CHATS), recipe)
    assert found.fits and found.name == f"recipe: {recipe.name}"
    for name, value in recipe.fields.items():
        assert found.values[name] == value and recipe.name in found.reasons[name]
    if recipe.rows_per_step:
        assert rows_per_step(found) == recipe.rows_per_step


RECIPE = """
description = "ours"
rows_per_step = 8
[when]
rows_at_least = 100
[method]
kind = "lora"
rank = 12
"""


def test_a_persons_recipe_is_offered_and_wins_over_a_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text(RECIPE)
    (tmp_path / "lima.toml").write_text('name = "LIMA"\n[train]\nepochs = 2.0\n')
    (tmp_path / "broken.toml").write_text("[train]\nepocs = 2.0\n")
    recipes = usable_recipes(tmp_path)
    assert [each.name for each in recipes.found[:2]] == ["LIMA", "ours"]
    assert sum(each.name.casefold() == "lima" for each in recipes.found) == 1
    (problem,) = recipes.problems
    assert "broken.toml" in problem.where and "epocs" in problem.where

    geometry = catalogue_geometry("Qwen/Qwen3-8B")
    found = plan(geometry, machine(24), CHATS, {"train.epochs": 1.0}, recipes=recipes.found)
    ours = found.find("ours")
    assert ours.name == "recipe: ours" and ours.values["method.rank"] == 12 and rows_per_step(ours) == 8
    assert found.find("lima").values["train.epochs"] == 1.0  # what a person asks for wins over their recipe
    few = plan(geometry, machine(24), replace(CHATS, rows=50), recipes=recipes.found)
    assert all(each.name != "recipe: ours" for each in few.profiles)


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("name = 3\n", "field name", "3"),
        ("train = 3\n", "field train", "not a section"),
        ("colour = 1\n", "field colour", "no part of a recipe"),
        ("rows_per_step = 0\n", "rows_per_step", "0"),
        ("[when]\nmoon = 1\n", "when.moon", "no limit"),
        ("[when]\nrows_at_least = -1\n", "when.rows_at_least", "-1"),
        ('[when]\ndevice = "tpu"\n', "when.device", "tpu"),
        ('[data]\ntrain = ["a.jsonl"]\n', "data.train", "path"),
        ('[model]\npath = "m"\n', "model.path", "path"),
        ("[method]\nrank = 0\n", "method.rank", "0"),
        ('[optimizer]\nlearning_rate = "fast"\n', "optimizer.learning_rate", "fast"),
        ("[method\n", "recipe.toml", "not valid TOML"),
        ("", "", ""),
    ],
)
def test_bad_recipes_name_the_file_and_the_field(tmp_path: Path, text: str, where: str, what: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    if not text:
        assert read_recipe(path).fields == {}
        return
    with pytest.raises(Problem) as raised:
        read_recipe(path)
    assert str(path) in raised.value.where and where in raised.value.where and what in raised.value.what


def test_a_ladder_has_every_method_once_and_shares_what_it_priced() -> None:
    geometry, known = catalogue_geometry("Qwen/Qwen3-0.6B"), {}
    for gib in (6, 12, 24):
        rungs = ladder(geometry, machine(gib), CHATS, known=known)
        assert [each.method for each in rungs] == ["full", "partial", "lora", "qlora"]
        assert rungs == ladder(geometry, machine(gib), CHATS)
    assert known


@settings(max_examples=30, deadline=None)
@given(shapes(), st.floats(1, 100), st.booleans(), jobs(), st.data())
def test_the_search_finds_what_pricing_every_point_finds(
    geometry: Geometry, gib: float, gpu: bool, job: Job, data: st.DataObject
) -> None:
    hardware = machine(gib, gpu)
    frame = Frame(geometry, hardware, job, {})
    pricing = Pricing(geometry, hardware, rates_of(hardware))
    space = frame.space(frame.length)
    search = Search(pricing, space)
    variant = data.draw(st.sampled_from(frame.variants()))
    every = [
        pricing.price(variant, search.settings(variant, mode, index, chunk))
        for mode in space.recompute
        for index in range(len(space.micro_batches))
        for chunk in space.chunks
    ]
    fitting = [pricing.speed(point).tokens_per_second for point in every if point.fits]
    found = search.fastest(variant)
    assert (found is None) == (not fitting)
    if found is not None:
        assert found.tokens_per_second == max(fitting)
    assert search.leanest(variant).peak_bytes == min(point.peak_bytes for point in every)
    offered = by_title(plan(geometry, hardware, job), "leanest")
    fitting_peaks = [point.peak_bytes for each in frame.variants() if (point := search.leanest(each)).fits]
    assert (offered and offered.peak_bytes) == min(fitting_peaks, default=None)


def test_measuring_stays_a_small_part_of_a_run() -> None:
    geometry = shape(2048, 16, 16, 4, 5632, 32_000, 4096)
    found = {
        rows: plan(geometry, machine(48), replace(CHATS, rows=rows, tokens=rows * 200)).profiles[0].values
        for rows in (100, 10_000, 1_000_000)
    }
    assert [found[rows]["evaluation.rows"] for rows in found] == [200, 500, 1000]


def test_a_plan_of_pairs_counts_both_answers_once_and_the_base_beside_them() -> None:
    geometry = shape(2048, 16, 16, 4, 5632, 32_000, 4096)
    pairs = Job(rows=20_000, tokens=8_000_000, longest_tokens=500, usual_tokens=400, answer_tokens=90)

    def seconds(objective: str) -> float:
        asked = {"objective.kind": objective, "train.epochs": 1.0, "method.kind": "lora", "data.sequence_length": 512}
        found = plan(geometry, machine(48), replace(pairs, objective=objective), asked).profiles[0].seconds  # type: ignore[arg-type]
        assert found is not None
        return found

    plain, without_base, with_base = seconds("next_token"), seconds("orpo"), seconds("dpo")
    assert without_base == pytest.approx(plain, rel=0.25)  # the same tokens, if in fewer and longer rows
    assert 1.2 < with_base / without_base < 1.7  # a forward of all rows by the base
    assert seconds("kto") > 1.3 * plain  # two forwards more a row before, one more a step
