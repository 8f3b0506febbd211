"""Recipes: how models are trained. A recipe is looked up where it lives when it is first used."""

from importlib import import_module


def __getattr__(name):
    from ..core import RECIPES

    targets = dict(entry.target.split(":")[::-1] for entry in RECIPES.values())
    if name not in targets:
        raise AttributeError(f"module 'ftkit.recipes' has no attribute {name!r}")
    return getattr(import_module(targets[name]), name)
