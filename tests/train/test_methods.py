"""What learns and what is kept: partial tuning, inputs that wait in RAM, Adafactor, quantised scales."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks
from training import build_setup, losses, make_spec, train, write_chats
from transformers import AutoModelForCausalLM

from engine.export.__main__ import export
from engine.methods.recomputing import checkpoint_layers, offloading_checkpoint
from engine.run.checkpoints.manifest import list_checkpoints
from engine.serve.sides import load_sides
from engine.spec import RunSpec
from engine.train.document_attention import document_attention
from engine.train.setup import Setup
from profiles.problem import Problem

LAYERS = 4


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("llama"), layers=LAYERS, dtype="bfloat16")


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl", 40)


def _in(spec: RunSpec, dtype: str) -> RunSpec:
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": dtype})})


def _forward(setup: Setup) -> torch.Tensor:
    """The first step's first loss, in training mode, with gradients."""
    setup.model.train()
    torch.manual_seed(0)
    batch = setup.forward.collate(setup.plan.micro_batches(0)[0])
    with setup.accelerator.autocast():
        return setup.forward.loss(batch, 1 / batch.targets)


def _gradients(setup: Setup) -> dict[str, torch.Tensor]:
    _forward(setup).backward()
    return {name: parameter.grad for name, parameter in setup.parameters.items() if parameter.grad is not None}


@pytest.mark.parametrize(("family", "norm"), [("llama", "model.norm.weight"), ("gpt2", "transformer.ln_f.weight")])
def test_partial_trains_the_last_layers_and_the_final_norm_alone(tmp_path: Path, chats: Path, family: str, norm: str):
    model = tiny.make_model(tmp_path / "model", family, layers=LAYERS)
    spec = _in(make_spec(model, chats, method={"kind": "partial", "trained_layers": 2}), "bf16")
    setup = build_setup(spec)
    assert norm in setup.parameters
    inside = {name for name in setup.parameters if ".layers." in name or ".h." in name}
    assert {int(name.split(".")[2]) for name in inside} == {2, 3}
    assert all(name.startswith(norm.removesuffix("weight")) for name in setup.parameters.keys() - inside)
    held = {parameter.dtype for parameter in setup.parameters.values()}
    frozen = {each.dtype for each in setup.model.parameters() if not each.requires_grad}
    assert (held, frozen) == ({torch.float32}, {torch.bfloat16})
    assert _gradients(setup).keys() == setup.parameters.keys()


@pytest.mark.parametrize("recompute", [0, 1])
def test_nothing_is_kept_before_the_first_layer_that_learns(llama: Path, chats: Path, recompute: int):
    spec = make_spec(
        llama,
        chats,
        method={"kind": "partial", "trained_layers": 1},
        train={"micro_batch": 4, "gradient_checkpointing": recompute},
    )
    setup = build_setup(_in(spec, "bf16"))
    kept: list[tuple[int, ...]] = []
    at_layer: list[int] = []
    for layer in setup.model.model.layers:
        layer.register_forward_pre_hook(lambda *_: at_layer.append(len(kept)))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        _forward(setup).backward()
    assert at_layer[:LAYERS] == [0] * LAYERS
    assert len(kept) > at_layer[LAYERS - 1]
    # Only the last layer went forward again.
    assert len(at_layer) == LAYERS


def test_partial_hands_over_a_whole_model_in_the_published_precision(llama: Path, chats: Path):
    spec = make_spec(
        llama,
        chats,
        method={"kind": "partial", "trained_layers": 2},
        optimizer={"learning_rate": 3e-3},
        train={"max_steps": 12, "micro_batch": 2},
    )
    run, events = train(_in(spec, "bf16"))
    assert losses(events)[-1] < 0.95 * losses(events)[0]
    (checkpoint,) = list_checkpoints(run.checkpoints)
    learned = load_file(checkpoint / "trainable.safetensors")
    assert all(tensor.dtype is torch.float32 for tensor in learned.values())
    base = dict(AutoModelForCausalLM.from_pretrained(llama).named_parameters())
    tuned = AutoModelForCausalLM.from_pretrained(run.outputs / "model")
    assert tuned.config.dtype is torch.bfloat16
    for name, parameter in tuned.named_parameters():
        expected = learned[name].bfloat16() if name in learned else base[name]
        assert torch.equal(parameter, expected), name


@pytest.mark.parametrize("wanted", ["chat", "export"])
def test_what_partial_handed_over_answers_and_is_exported(tmp_path: Path, llama: Path, wanted: str):
    run = tiny.make_run(tmp_path / "home", "partial", model=llama)
    if wanted == "chat":
        sides = load_sides(run, lambda detail: None).sides
        logits = [side.reader.read([5, 6, 7]) for side in (sides["base"], sides["tuned"])]
        assert not torch.equal(*logits)
        return
    export(run, "merged", tmp_path / "merged", lambda kind, **fields: None)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for name, parameter in AutoModelForCausalLM.from_pretrained(run.outputs / "model").named_parameters():
        assert torch.equal(parameter, exported.get_parameter(name))
    assert "partial: the last 4 decoder layers" in (tmp_path / "merged" / "README.md").read_text()
    with pytest.raises(Problem, match="no adapter"):
        export(run, "adapter", tmp_path / "adapter", lambda kind, **fields: None)


@pytest.mark.parametrize("method", ["lora", "full", "partial"])
def test_measured_memory_is_split_by_what_learns(llama: Path, chats: Path, method: str):
    setup = build_setup(make_spec(llama, chats, method={"kind": method, "trained_layers": 2}))
    learning = sum(parameter.nbytes for parameter in setup.parameters.values())
    everything = sum(parameter.nbytes for parameter in setup.model.parameters())
    measured = setup.memory.components(setup.model, setup.parameters.values(), setup.optimizer)
    assert measured["gradients"] == learning
    assert measured["adapters"] == (learning if method == "lora" else 0)
    assert measured["weights"] == everything - measured["adapters"]


def test_more_layers_than_there_are_is_refused(llama: Path, chats: Path):
    with pytest.raises(Problem, match=r"method\.trained_layers.*has 4 decoder layers"):
        build_setup(make_spec(llama, chats, method={"kind": "partial", "trained_layers": LAYERS + 1}))


@pytest.mark.parametrize("method", ["lora", "full", "partial"])
def test_inputs_that_wait_in_ram_give_the_same_gradients(
    llama: Path, chats: Path, method: str, monkeypatch: pytest.MonkeyPatch
):
    moved: list[tuple[int, ...]] = []

    def watched(pack, unpack):
        def watch(tensor: torch.Tensor) -> object:
            packed = pack(tensor)
            assert packed[1].data_ptr() != tensor.data_ptr()
            moved.append(tuple(tensor.shape))
            return packed

        return saved_tensors_hooks(watch, unpack)

    monkeypatch.setattr("engine.methods.recomputing.saved_tensors_hooks", watched)
    fields = {"kind": method, "dropout": 0.2 if method == "lora" else 0.0, "trained_layers": 2}
    found = []
    for offload in (False, True):
        setup = build_setup(_in(make_spec(llama, chats, method=fields, train={"micro_batch": 4}), "bf16"))
        recomputing = checkpoint_layers(setup.model, 1, offload=offload)
        found.append(_gradients(setup))
    plain, offloaded = found
    assert plain.keys() == offloaded.keys() == setup.parameters.keys()
    assert all(torch.equal(plain[name], offloaded[name]) for name in plain)
    # One hidden state a layer, and nothing else.
    assert len(moved) == recomputing == (2 if method == "partial" else LAYERS)
    assert len(set(moved)) == 1


def test_offloading_frees_what_it_moved():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8))
    hidden = torch.randn(4, 8, requires_grad=True)
    start = hidden * 1
    address = start.data_ptr()
    out = offloading_checkpoint(layer, start)
    with torch.no_grad():
        start.fill_(float("nan"))  # if it were still kept, the gradients would not be numbers
    assert start.data_ptr() == address
    out.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_offloading_is_refused_where_no_layer_recomputes_and_named_needless_on_a_cpu(llama: Path, chats: Path):
    with pytest.raises(Problem, match=r"train\.offload_checkpoints"):
        build_setup(make_spec(llama, chats, train={"offload_checkpoints": True}))
    setup = build_setup(make_spec(llama, chats, train={"offload_checkpoints": True, "gradient_checkpointing": 1}))
    assert any("not offloaded" in reason for reason in setup.reasons)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_lean_lora_computes_what_peft_does(tmp_path: Path, chats: Path, method: str, dtype: str):
    base = tiny.make_model(tmp_path / "model", layers=2)
    found = []
    for lean in (True, False):
        setup = build_setup(_in(make_spec(base, chats, method={"kind": method}, train={"micro_batch": 4}), dtype))
        torch.manual_seed(3)
        for name, parameter in setup.parameters.items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        if not lean:
            for module in setup.model.modules():
                module.__dict__.pop("forward", None)  # the class's own again
        found.append((float(_forward(setup).detach()), _gradients(setup)))
    (loss, ours), (plain_loss, plain) = found
    tolerance = 1e-5 if dtype == "fp32" else 0.08  # roundings in bf16, which both do, in another order
    assert loss == pytest.approx(plain_loss, abs=tolerance)
    assert ours.keys() == plain.keys() == setup.parameters.keys()
    for name, gradient in ours.items():
        assert (gradient - plain[name]).norm() <= tolerance * plain[name].norm(), name


def test_lora_leaves_experts_routers_and_the_head_alone(tmp_path: Path, chats: Path):
    model = tiny.make_model(tmp_path / "model", "mixtral")
    setup = build_setup(make_spec(model, chats, method={"kind": "lora"}))
    adapted = {name.partition(".lora_")[0].rpartition(".")[2] for name in setup.parameters}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize("window", [None, 5])
def test_attention_that_repeats_key_heads_is_the_same(monkeypatch: pytest.MonkeyPatch, window: int | None):
    torch.manual_seed(0)
    heads = [torch.randn(1, count, 24, 8, requires_grad=True) for count in (4, 2, 2)]
    found = []
    for groups in (True, False):
        monkeypatch.setattr("engine.train.document_attention._groups_heads", lambda *_, groups=groups: groups)
        output, _ = document_attention(None, *heads, None, document_lengths=(13, 3, 8), sliding_window=window)
        found.append((output, *torch.autograd.grad(output.square().sum(), heads)))
    for grouped, repeated in zip(*found, strict=True):
        torch.testing.assert_close(grouped, repeated)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_adafactor_learns_at_the_rates_adamw_does_with_far_less_state(llama: Path, chats: Path, method: str):
    rate = 1e-2 if method == "lora" else 3e-3
    ends, states = {}, {}
    for kind in ("adamw", "adafactor"):
        spec = make_spec(
            llama,
            chats,
            method={"kind": method},
            optimizer={"kind": kind, "learning_rate": rate},
            train={"max_steps": 30, "micro_batch": 2},
        )
        run, events = train(spec)
        found = losses(events)
        ends[kind] = sum(found[-3:]) / sum(found[:3])
        states[kind] = (list_checkpoints(run.checkpoints)[-1] / "optimizer.safetensors").stat().st_size
    assert ends["adafactor"] < 1.1 * ends["adamw"] < 0.7
    assert states["adafactor"] < states["adamw"] / (2 if method == "lora" else 8)


def test_weight_decay_of_adafactor_shrinks_matrices_only(llama: Path, chats: Path):
    spec = make_spec(
        llama,
        chats,
        method={"kind": "full"},
        optimizer={"kind": "adafactor", "learning_rate": 1e-3, "weight_decay": 0.5},
    )
    setup = build_setup(spec)
    before = {name: parameter.detach().clone() for name, parameter in setup.parameters.items()}
    for parameter in setup.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    setup.optimizer.step()
    for name, parameter in setup.parameters.items():
        share = 1 - 1e-3 * 0.5 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter, before[name] * share)


def test_scales_are_quantised_only_when_asked(llama: Path, chats: Path):
    nested = []
    for double in (True, False):
        setup = build_setup(make_spec(llama, chats, method={"kind": "qlora", "double_quantisation": double}))
        states = [each.quant_state for each in setup.model.parameters() if hasattr(each, "quant_state")]
        nested.append({state.nested for state in states})
    assert nested == [{True}, {False}]
