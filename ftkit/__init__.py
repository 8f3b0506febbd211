"""Learn, teach and prototype fine-tuning: one verb for every method on every family of models.

Importing this package is light: a name is looked up where it lives when it is first used.
"""

import sys
from importlib import import_module
from os import environ
from typing import Any

# Threads of OpenMP that wait for each other spin only briefly and then sleep: spinning for longer, as libgomp does by
# itself, a fit beside other programs takes many times as long. libgomp reads this once, when torch loads it, so it is
# set before that or not at all, and never over a setting of the user's. libomp and Intel's library yield by themselves.
if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environ.keys():
    environ["GOMP_SPINCOUNT"] = "1000"

__version__ = "0.1.0"

_WHERE = {
    "models.checkpoints": "load",
    "models.anatomy": "anatomy",
    "api": (
        "finetune resume method show_batch contrast list_methods list_checkpoints list_tasks list_recipes list_datasets"
    ),
    "experiments.compare": "compare Comparison find_lr",
    "evaluation.retention": "Retention",
    "core": "FtError ConfigError DataError CheckpointError UnsupportedError",
    "deltas.io": "save_delta load_delta",
    "deltas.multi": "MultiAdapter",
    "speed.array_store": "cache",
    "speed.execution": "ExecutionConfig",
    "recipes.base": "Recipe",
    "recipes.supervised": "Supervised",
    "recipes.run_spec": "RunSpec",
    "experiments.estimate": "estimate",
    "training.args": "TrainingArgs",
    "training.callbacks": "Callback Tracker TensorBoard",
    "training.learner": "Learner",
    "tasks.base": "Task",
    "runs": "Run load_run",
    "methods.full": "Full",
    "methods.linear_probe": "LinearProbe",
    "methods.layerwise_lr": "LayerwiseLR",
    "methods.select": "Select",
    "methods.freeze": "Freeze",
    "methods.gradual_unfreeze": "GradualUnfreeze",
    "methods.bitfit": "BitFit",
    "methods.ln_tuning": "LNTuning",
    "methods.fish_mask": "FISHMask",
    "methods.diff_pruning": "DiffPruning",
    "methods.lora": "LoRA",
    "methods.dora": "DoRA",
    "methods.qlora": "QLoRA",
    "methods.adalora": "AdaLoRA",
    "methods.loha": "LoHa",
    "methods.lokr": "LoKr",
    "methods.ia3": "IA3",
    "methods.peft_methods": "Peft",
    "methods.adapter": "Adapter",
    "methods.prompt_tuning": "PromptTuning",
    "methods.prefix_tuning": "PrefixTuning",
    "methods.visual_prompt": "VisualPrompt",
    "methods.ptuning": "PTuning PTuningV2",
    "methods.hard_prompt": "HardPrompt",
    "methods.composites": "MAM UniPELT",
}
_NAMES = {name: module for module, names in _WHERE.items() for name in names.split()}
_PACKAGES = (
    "core data datasets plot models tasks methods deltas training speed recipes runs api evaluation experiments"
    " testing teach cli"
).split()

__all__ = [*_NAMES]


def _imported(module):
    from .core import gc_paused

    with gc_paused():
        return import_module(f".{module}", __name__)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(_imported(_NAMES[name]), name)
    elif name in _PACKAGES:
        value = _imported(name)
    else:
        from .core import current_name

        current = current_name("ftkit", name)
        if current == name:
            raise AttributeError(f"module 'ftkit' has no attribute {name!r}")
        return __getattr__(current)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_PACKAGES})
