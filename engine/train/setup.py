"""Everything a run needs before its first step, built in order: data, model, what learns, optimizer, the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoConfig

from engine.data.dataset import Dataset
from engine.data.examples import Examples
from engine.data.prepare.preparing import prepare
from engine.data.tokens.loading import load_text_tokenizer
from engine.data.tokens.reference import describe_folder
from engine.evaluate.answers import find_stop_tokens
from engine.methods.heads import Head
from engine.methods.loading import load_base, load_tokenizer
from engine.methods.recomputing import checkpoint_layers
from engine.methods.trainable import count_parameters, make_trainable, trainable_parameters
from engine.objectives.base import Objective
from engine.objectives.choosing import check_kind, head_of, make_objective
from engine.run.circumstances import BaseReading, circumstances_of, data_circumstances, version_circumstances
from engine.spec import RunSpec
from engine.train.batches import EvaluationBatches, MicroBatch, evaluation_batches
from engine.train.checkpoints.random_state import seed_everything
from engine.train.device import AUTOCAST, Precision, choose_device, choose_precision, device_words
from engine.train.document_attention import DOCUMENT_ATTENTION
from engine.train.forward import Forward
from engine.train.memory import MemoryMeter
from engine.train.optimizer import make_optimizer
from engine.train.step import forward_backward, update
from engine.train.step_plan import StepPlan
from engine.train.tally import SourceTally, source_facts
from profiles.problem import Problem

THREADS = "threads"
"""The circumstance of how many threads a CPU's sums are divided among."""

PhaseReport = Callable[[str, str, int, int], None]
"""Told (phase, detail, done, total) while the parts are built; total is 0 where nothing is counted."""


@dataclass
class Setup:
    """A run ready for its first step."""

    spec: RunSpec
    accelerator: Accelerator
    precision: Precision
    reasons: list[str]
    memory: MemoryMeter
    tokenizer: Any
    dataset: Dataset
    plan: StepPlan
    total_steps: int
    held_out: Examples
    """Those of the held-out examples that are measured on (evaluation.rows)."""
    evaluation_tokens: int
    """Of rows that go through the model at once where nothing is learnt from them."""
    model: Any
    forward: Forward
    head: Head
    objective: Objective[Any]
    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    stepper: Any
    """The optimizer as accelerate wraps it: it applies fp16's loss scale and skips a step that overflowed."""
    stop_tokens: list[int]
    """Tokens that end an answer; none where the model does not write."""
    published_dtype: torch.dtype
    """The precision the base model's files are in, which a tuned model is handed over in."""
    asked: RunSpec
    """As its person wrote it; `spec` has what the ladder changed."""
    base: BaseReading
    """What the base model's files hold."""
    settled: dict[str, str]
    """Circumstances as the process began with them: the order of the rows, and the versions of its libraries."""

    def circumstances(self) -> dict[str, str]:
        """All that decides what is learnt (see engine.run.circumstances), for checkpoints. Waits until the base's files
        were read."""
        attention = self.forward.attention + (", padded rows" if self.forward.padded else "")
        device = {
            "device": device_words(self.device),
            "dtype": str(self.precision.compute).removeprefix("torch."),
            "attention": attention.removeprefix("finetui_"),
        }
        if self.device.type == "cpu":
            device[THREADS] = str(torch.get_num_threads())
        data = data_circumstances(self.dataset.lineage())
        return circumstances_of(self.asked, data, self.base.result(), device, self.settled)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def held_out_batches(self) -> EvaluationBatches:
        """What is measured on, in batches of `evaluation_tokens`."""
        padded, collate = self.forward.padded, self.objective.collate
        return evaluation_batches(self.held_out, self.evaluation_tokens, padded=padded, collate=collate)

    def add_gradients(self, batch: MicroBatch, targets: int, tally: SourceTally | None = None) -> torch.Tensor:
        """Add the gradients of one micro-batch of a step of `targets` units. Returns its share of the loss; `tally`
        is added every unit's own."""
        each = torch.empty(batch.targets, device=self.device) if tally is not None else None
        loss = forward_backward(
            partial(self.objective.loss, batch.to(self.device), scale=1 / targets, each=each),
            autocast=self.accelerator.autocast,
            backward=self.accelerator.backward,
        )
        if tally is not None and each is not None:
            tally.add(batch.unit_sources, each)
        return loss

    def source_tally(self) -> SourceTally | None:
        """What tells losses apart by the data source; None where there is one source only."""
        count = len(self.spec.data.train)
        return SourceTally(count, self.device) if count > 1 else None

    def update(self) -> torch.Tensor:
        """Take an optimizer step with the gradients there are, and drop them. Returns their norm."""
        scaler = self.accelerator.scaler
        return update(
            self.parameters.values(),
            self.stepper,
            limit=self.spec.optimizer.max_gradient_norm,
            unscale=partial(scaler.unscale_, self.optimizer) if scaler is not None else None,
        )

    def plan_facts(self) -> dict[str, Any]:
        """The fields of the `plan` event that training itself knows."""
        return {
            "planned_steps": self.total_steps,
            "rows_per_step": self.spec.rows_per_step,
            "sequence_length": self.spec.data.sequence_length,
            "train_rows": len(self.dataset.train),
            "held_out_rows": len(self.dataset.held_out),
            "measured_rows": len(self.held_out),
            "rejected_rows": self.dataset.reject_count,
            "cut_rows": self.dataset.cut_rows,
            "train_tokens": self.dataset.train_tokens,
            "target_tokens": self.dataset.target_tokens,
            "packing_efficiency": self.plan.packing_efficiency,
            "wasted_share": self.plan.wasted_share(padded=self.forward.padded),
            "wasted_share_padded": self.plan.wasted_share_padded(),
            **({"sources": sources} if (sources := source_facts(self.spec.data, self.plan)) else {}),
            "total_parameters": count_parameters(self.model),
            "trainable_parameters": sum(parameter.numel() for parameter in self.parameters.values()),
            "device": self.device.type,
            "dtype": str(self.precision.compute).removeprefix("torch."),
            "attention": self.forward.attention.replace(DOCUMENT_ATTENTION, "per-document").removeprefix("finetui_"),
            "reasons": self.reasons,
        }


def build(
    spec: RunSpec,
    report: PhaseReport,
    keep: Path | None = None,
    session: str = "",
    *,
    asked: RunSpec | None = None,
    base: BaseReading | None = None,
    anyway: bool = False,
    anew: bool = False,
    link: Callable[[str], bool] | None = None,
) -> Setup:
    """Everything for `spec`. `keep` is the folder in which the run keeps its prepared data, with `link` to have links
    made there; `session`, `anyway` and `anew` say what becomes of data that changed (see `prepare`); `asked` is the
    spec before memory ran out, where that has made some of it smaller; `base` reads the base's files already. Raises
    Problem for a fault in the data, the model or the settings."""
    asked, base = asked or spec, base or BaseReading(spec.model.path)
    versions = version_circumstances(asked)
    device = choose_device()
    precision = choose_precision(spec.model.dtype, spec.method.kind, device)
    if precision.compute is torch.float16:
        torch.set_float32_matmul_precision("highest")  # fp16 cards have no TF32
    accelerator = Accelerator(
        mixed_precision=precision.mixed_precision, cpu=device.kind == "cpu", kwargs_handlers=[AUTOCAST]
    )
    seed_everything(spec.train.seed)

    report("preparing", "reading the data", 0, 0)
    tokenizer = load_tokenizer(spec.model.path, spec.data.chat_template)
    dataset = prepare(
        spec.data,
        load_text_tokenizer(spec.model.path, spec.data.chat_template, describe_folder),
        lambda progress: report("preparing", str(progress), progress.done_bytes, progress.total_bytes),
        keep=keep,
        session=session,
        anyway=anyway,
        anew=anew,
        link=link,
    )
    check_kind(spec, dataset)
    head = head_of(spec, dataset, tokenizer.pad_token_id)
    plan = StepPlan(
        dataset.train,
        sequence_length=spec.data.sequence_length,
        packing=spec.data.packing,
        micro_batch=spec.train.micro_batch,
        gradient_accumulation=spec.train.gradient_accumulation,
        seed=spec.train.seed,
        length_group=asked.train.micro_batch if spec.data.group_by_length else 1,
        repeats=dataset.repeats,
    )
    memory = MemoryMeter(accelerator.device)

    report("loading", "loading the base model", 0, 0)
    model = load_base(
        spec.model.path,
        dtype=precision.weights,
        device=str(accelerator.device),
        quantise=spec.method.kind == "qlora",
        double_quantisation=spec.method.double_quantisation,
        head=head,
    )
    _check_lengths(spec, model, tokenizer)
    stop_tokens = find_stop_tokens(model, tokenizer, dataset.train) if head.kind == "language" else []
    model = make_trainable(model, spec.method)
    forward = Forward(
        model, attention=spec.model.attention, compute=precision.compute, loss_chunk=spec.train.loss_chunk
    )
    with accelerator.autocast():
        forward.settle_layout(dataset.train)
    held_out = dataset.held_out[: spec.evaluation.rows or None]
    objective = make_objective(
        spec.objective,
        forward,
        dataset.train,
        held_out,
        classes=len(dataset.labels),
        several=dataset.several_labels,
        seed=spec.train.seed,
        step_units=round(plan.examples_per_step),
    )
    reasons = [precision.reason, forward.reason, *_set_recomputing(spec, model, accelerator.device)]
    if forward.leaves_out_dropout:
        reasons.append("the model's attention dropout is left out: fused attention has none")
    parameters = trainable_parameters(model)
    optimizer = make_optimizer(parameters, spec.optimizer)
    memory.leave_out_loading()
    return Setup(
        spec=spec,
        accelerator=accelerator,
        precision=precision,
        reasons=reasons,
        memory=memory,
        tokenizer=tokenizer,
        dataset=dataset,
        plan=plan,
        total_steps=plan.total_steps(spec.train.epochs, spec.train.max_steps),
        held_out=held_out,
        evaluation_tokens=spec.train.micro_batch * spec.data.sequence_length,
        model=model,
        forward=forward,
        head=head,
        objective=objective,
        parameters=parameters,
        optimizer=optimizer,
        stepper=accelerator.prepare(optimizer),
        stop_tokens=stop_tokens,
        published_dtype=_published_dtype(spec),
        asked=asked,
        base=base,
        settled={"order of the rows": plan.fingerprint, **versions},
    )


def _set_recomputing(spec: RunSpec, model: Any, device: torch.device) -> list[str]:
    """Make the layers recompute as the spec says. Returns what a person should know of it; raises Problem."""
    every, offload = spec.train.gradient_checkpointing, spec.train.offload_checkpoints
    if offload and not every:
        raise Problem(
            "train.offload_checkpoints",
            "moves the inputs of layers that recompute, and none does: train.gradient_checkpointing is 0",
            "Set train.gradient_checkpointing to 1, or train.offload_checkpoints to false.",
        )
    if every and not checkpoint_layers(model, every, offload=offload and device.type != "cpu"):
        raise Problem(
            "train.gradient_checkpointing",
            "this model's layers cannot recompute their activations",
            "Set it to 0.",
        )
    if offload and device.type == "cpu":
        return ["checkpoints are not offloaded: on a CPU they are in RAM already"]
    return []


def _published_dtype(spec: RunSpec) -> torch.dtype:
    config = AutoConfig.from_pretrained(spec.model.path, local_files_only=True, trust_remote_code=False)
    dtype = getattr(config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype), torch.float32)


def _check_lengths(spec: RunSpec, model: Any, tokenizer: Any) -> None:
    """Refuse rows longer than the model's context and tokens that its embedding does not have."""
    config = model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if context and spec.data.sequence_length > context:
        raise Problem(
            "data.sequence_length",
            f"is {spec.data.sequence_length:,}, but the model's context is {context:,} tokens",
            f"Set it to {context} or less.",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise Problem(
            f"{spec.model.path}, tokenizer",
            f"has {len(tokenizer):,} tokens, the model's embedding has {rows:,} rows",
            "Use the tokenizer that belongs to this model.",
        )
