"""Learn, teach and prototype fine-tuning: one verb for every method on every family of models.

Importing this package is light: a name is looked up where it lives when it is first used.
"""

import sys
from importlib import import_module
from os import environ

# Threads of OpenMP that wait for each other spin only briefly and then sleep: spinning for longer, as libgomp does by
# itself, a fit beside other programs takes many times as long. libgomp reads this once, when torch loads it, so it is
# set before that or not at all, and never over a setting of the user's. libomp and Intel's library yield by themselves.
if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & environ.keys():
    environ["GOMP_SPINCOUNT"] = "1000"

__version__ = "0.1.0"

_WHERE = {
    "checkpoints": "load",
    "structure": "anatomy",
    "api": "finetune resume load_run method list_methods list_checkpoints list_tasks list_datasets show_batch",
    "lab": "compare Comparison find_lr",
    "core": "FtError",
    "share": "save_delta load_delta",
    "many": "MultiAdapter",
    "store": "cache",
    "recipes.contrastive": "contrast",
    "advice": "estimate",
    "train": "Learner",
    "run": "Run",
    "methods.full": "Full",
    "methods.head": "LinearProbe",
    "methods.layerwise_lr": "LayerwiseLR",
    "methods.select": "Select",
    "methods.freeze": "Freeze",
    "methods.gradual_unfreeze": "GradualUnfreeze",
    "methods.bitfit": "BitFit",
    "methods.norm_tuning": "LNTuning",
    "methods.sparse": "FISHMask",
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
    "methods.prompt": "PromptTuning",
    "methods.prefix": "PrefixTuning",
    "methods.visual_prompt": "VisualPrompt",
    "methods.ptuning": "PTuning PTuningV2",
    "methods.hard_prompt": "HardPrompt",
    "methods.hybrid": "MAM UniPELT",
}
_NAMES = {name: module for module, names in _WHERE.items() for name in names.split()}
_ROOMS = (
    "core formats show structure kernels data gallery tasks weights checkpoints methods share many store probe state "
    "train trunk run recipes api lab evaluation saliency advice testing teach cli"
).split()
_LATER = ("recommend diagnose evaluate export").split()

__all__ = [*_NAMES, *_LATER]


def _later(name):
    def to_come(*args, **kwargs):
        "A name of the public face that is not built yet."
        from .core import FtError

        raise FtError(f"ft.{name} is not built yet; it is to come in a later version of ftkit.")

    to_come.__name__ = to_come.__qualname__ = name
    return to_come


def _imported(module):
    from .core import gc_paused

    with gc_paused():
        return import_module(f".{module}", __name__)


def __getattr__(name):
    if name in _NAMES:
        value = getattr(_imported(_NAMES[name]), name)
    elif name in _ROOMS:
        value = _imported(name)
    elif name in _LATER:
        value = _later(name)
    else:
        raise AttributeError(f"module 'ftkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
