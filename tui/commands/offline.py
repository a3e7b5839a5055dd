"""What `finetui doctor --offline` looks at: all that it takes from a model to files that are handed over, on a machine
without a network, and what to copy there where it is missing. Nothing is looked up anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.airgap.installed import try_installed
from engine.airgap.requirements import Package, needed_packages
from engine.run.directory import list_runs
from profiles.geometry import ModelReport, inspect_model
from profiles.model_catalogue import find_catalogue_model
from profiles.problem import Problem, printable
from tui.commands.checks import Check, Examination, check_python, check_system, judge_cuda, judge_kernels
from tui.format import bytes_text, counted

_BUNDLE = "make bundle, on a machine with a network and the same platform and Python"
# Of recent runs: those that somebody works with.
_MODELS_OF_RUNS = 3
_GGUF_CONVERTERS = ("convert_hf_to_gguf.py", "convert-hf-to-gguf", "convert_hf_to_gguf")
_COPY_MODEL = (
    "Copy its whole folder from a machine that has it: config.json, generation_config.json, the tokenizer's files "
    "(tokenizer*.json, *.model, *.jinja, vocab*, merges.txt), all *.safetensors and model.safetensors.index.json. "
    "Out of a hub's cache with cp -rL, since its snapshots are links."
)


def offline_checks(model: str | None) -> list[tuple[str, Examination]]:
    """The examinations in the order they are shown, each with what is being looked at."""
    return [
        ("system", check_system),
        ("python", check_python),
        ("packages", check_packages),
        ("models", lambda: check_models(model)),
        ("tools", check_tools),
    ]


def check_packages() -> Iterator[Check]:
    """Every package that is needed, in its version; those that finetui imports are tried, and their kernels."""
    packages = needed_packages()
    yield from judge_packages(packages)
    own = [each.module for each in packages if each.is_own and each.version is not None]
    try:
        found = try_installed(own)
    except Problem as problem:
        yield Check("packages", "fail", f"{problem.where} {problem.what}", problem.fix)
        return
    yield from judge_installed(found)


def judge_packages(packages: Sequence[Package]) -> Iterator[Check]:
    lacking = [each for each in packages if each.version is None]
    others = [each for each in packages if not each.is_as_pinned]
    for each in lacking:
        name = f"{each.name} {each.pinned}" if each.pinned else each.name
        yield Check(
            "package", "fail", f"{name} is not installed", f"{_from_bundle(each)}, or the whole of it: {_BUNDLE}."
        )
    for each in others:
        found = f"{each.name} is {printable(each.version)}, and finetui was tested with {each.pinned}"
        yield Check("package", "warn", found, f"{_from_bundle(each)}.")
    pinned = sum(each.pinned is not None and each.version is not None and each.is_as_pinned for each in packages)
    if pinned:
        yield Check("packages", "ok", f"{counted(pinned, 'package')} in the version that finetui was tested with")
    if not any(each.pinned for each in packages):
        yield Check(
            "packages", "ok", f"{counted(len(packages), 'package')}; which versions were tested is not known here"
        )


def judge_installed(found: dict[str, Any]) -> Iterator[Check]:
    """The checks that follow from what the sealed child tried."""
    faults = {name: fault for name, fault in found["imports"].items() if fault}
    for name, fault in faults.items():
        yield Check(
            "package", "fail", f"{name} does not import: {printable(fault, 200)}", f"Install it again: {_BUNDLE}."
        )
    if not faults:
        yield Check("packages", "ok", f"all {len(found['imports'])} that finetui imports do import, with no network")
    torch = found["torch"]
    if not torch:
        return
    gpu = judge_cuda(found)
    if gpu.level == "fail":
        fix = "Pack a build of torch for the driver's CUDA or an earlier one: make bundle TORCH=LABEL, such as cu130."
        gpu = replace(gpu, fix=fix)
    yield gpu
    if wrong := _unbuilt(torch):
        what = (
            f"torch has no code for compute capability {', '.join(wrong)}, only for {', '.join(torch['architectures'])}"
        )
        yield Check("GPU", "fail", what, "Pack a build of torch that has it: make bundle TORCH=cu...")
    yield from judge_kernels(found, f"Install torch again: {_BUNDLE}.")


def check_models(named: str | None) -> Iterator[Check]:
    """The model that was named, else those of the newest runs."""
    models = [named] if named is not None else _models_of_runs()
    for model in models:
        yield from check_model(model)
    if not models:
        fix = "Name its folder: finetui doctor --offline MODEL"
        yield Check("model", "warn", "no model was named, and no run names one, so none was looked at", fix)


def check_model(model: str) -> Iterator[Check]:
    """Whether everything of a model is there: its weights by their index, its tokenizer, template and config."""
    path = Path(model).expanduser().absolute()
    if not path.exists():
        known = find_catalogue_model(model)
        what = f"{printable(model, 300)} is not on this machine"
        weights = f", some {bytes_text(known.geometry().weight_bytes)}" if known is not None else ""
        yield Check("model", "fail", what + weights, _COPY_MODEL)
        return
    report = inspect_model(path)
    for problem in report.problems:
        yield Check("model", "fail", f"{problem.where}: {problem.what}", problem.fix)
    if not report.problems:
        yield Check("model", "ok", f"{printable(path, 300)}: {_contents(report)}")
    if report.tokenizer and not report.has_chat_template:
        fix = "Copy chat_template.jinja too, or choose a known one (data.chat_template); plain text needs none."
        yield Check("template", "warn", f"{printable(path.name)} has no chat template, so chats cannot be written", fix)
    for note in report.notes:
        if "chat template" not in note:
            yield Check("model", "ok", note)


def check_tools() -> Iterator[Check]:
    """What else the way takes: nothing to compile or to evaluate with, and a converter where GGUF is wanted."""
    yield Check("compiler", "ok", "none is needed: finetui compiles nothing when it trains")
    yield Check("measuring", "ok", "held-out loss, exact match and answers need nothing further")
    for name in _GGUF_CONVERTERS:
        if path := shutil.which(name):
            yield Check("GGUF", "ok", f"finetui writes safetensors; {path} can make GGUF of a merged export")
            return
    yield Check(
        "GGUF",
        "warn",
        "finetui writes safetensors and no GGUF, and llama.cpp's converter is not here",
        "Only where GGUF is wanted: copy llama.cpp's folder with convert_hf_to_gguf.py, and the wheel of gguf.",
    )


def _models_of_runs() -> list[str]:
    found: dict[str, None] = {}
    try:
        for run in list_runs():
            try:
                found[str(run.spec().model.path)] = None
            except Problem:
                continue  # a damaged spec is told elsewhere
            if len(found) == _MODELS_OF_RUNS:
                break
    except Problem:
        pass  # the folder of runs cannot be read, which the check of the home tells
    return list(found)


def _contents(report: ModelReport) -> str:
    geometry = report.geometry
    weights = f"weights whole ({bytes_text(geometry.weight_bytes)})" if geometry is not None else "weights"
    template = "chat template" if report.has_chat_template else "no chat template"
    return f"config, {weights}, tokenizer ({report.tokenizer}), {template}"


def _unbuilt(torch: dict[str, Any]) -> list[str]:
    """Capabilities of GPUs here that this build of torch has neither code nor anything to make it from."""
    built = [name.partition("_")[2].rstrip("af") for name in torch["architectures"]]
    makes = [int(name.partition("_")[2].rstrip("af")) for name in torch["architectures"] if name.startswith("compute_")]
    # Code for a capability also runs on later ones of the same generation.
    return [
        each
        for each in torch["capabilities"]
        if built
        and not any(each[:-1] == one[:-1] and int(one) <= int(each) for one in built)
        and not any(one <= int(each) for one in makes)
    ]


def _from_bundle(package: Package) -> str:
    name = f"{package.name}=={package.pinned}" if package.pinned else package.name
    return f"From a bundle's folder: python -m pip install --no-index --find-links wheels {name}"
