"""Mutation testing: insert one fault at a time into a copy of the package; its tests must fail (`make mutations`)"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools.warm import Done, Warm  # noqa: E402

LOOP = "tests/contracts/test_loop.py::"
CELL = "tests/test_matrix.py::test_cell"
PEFT = "tests/test_peft_files.py::"


@dataclass(frozen=True)
class Mutation:
    "A fault: `old` occurs exactly once in `file` and is replaced by `new`; then one of `tests` must fail."

    what: str
    file: str  # relative to ftkit/
    old: str
    new: str
    tests: str  # node ids, separated by spaces


MUTATIONS = [
    Mutation(
        "LoRA does not scale its update",
        "methods/lora_linear.py",
        "rows.addmm_(low_rank, b16.t(), alpha=scale)",
        "rows.addmm_(low_rank, b16.t())",
        f"{PEFT}test_ours_open_with_peft[lora]",
    ),
    Mutation(
        "LoRA's gradient of B is not scaled",
        "methods/lora_linear.py",
        "(g.t() @ low_rank).mul_(ctx.scale)",
        "(g.t() @ low_rank)",
        f"{LOOP}test_gradients_of_lora_are_those_of_peft",
    ),
    Mutation(
        "LoRA+: A uses B's learning rate",
        "methods/peft_bridge.py",
        "next((f for part, f in self.injection.faster if part in n), 1.0)",
        "next((f for part, f in self.injection.faster), 1.0)",
        f"{LOOP}test_every_parameter_has_its_own_learning_rate",
    ),
    Mutation(
        "a merge ignores alpha",
        "methods/peft_bridge.py",
        "layer.merge(adapter_names=[self.name])",
        "layer.scaling[self.name] = 1.0; layer.merge(adapter_names=[self.name])",
        "tests/test_invariants.py::test_merging_one_of_two_deltas_leaves_the_other",
    ),
    Mutation(
        "IA3 is not initialised to ones",
        "methods/ia3.py",
        '(("feedforward_modules", tuple(last)), ',
        '(("init_ia3_weights", False), ("feedforward_modules", tuple(last)), ',
        f"{CELL}[ia3-bert]",
    ),
    Mutation(
        "an adapter is not initialised to zero",
        "methods/adapter.py",
        "nn.init.zeros_(self.up.weight)",
        "nn.init.normal_(self.up.weight, std=0.02)",
        f"{CELL}[adapter-bert]",
    ),
    Mutation(
        "the prefix's mask is off by one",
        "methods/prefix_tuning.py",
        "nn.functional.pad(mask, (size, 0), ",
        "nn.functional.pad(mask, (size - 1, 1), ",
        f"{CELL}[prefix_tuning-bert]",
    ),
    Mutation(
        "one block too many is trainable",
        "methods/freeze.py",
        "== len(blocks) - self.num_trainable_blocks)",
        "== len(blocks) - self.num_trainable_blocks - 1)",
        f"{LOOP}test_freeze_trains_the_blocks_it_names",
    ),
    Mutation(
        "learning rates increase towards the lower blocks",
        "methods/layerwise_lr.py",
        "return blocks - block if block is not None",
        "return block + 1 if block is not None",
        f"{LOOP}test_every_parameter_has_its_own_learning_rate",
    ),
    Mutation(
        "a composition uses the smaller learning rate",
        "methods/base.py",
        "train[n] = max(r, train.get(n, 0.0))",
        "train[n] = min(r, train.get(n, r))",
        f"{LOOP}test_every_parameter_has_its_own_learning_rate",
    ),
    Mutation(
        "biases are trained although they are frozen",
        "methods/base.py",
        "for p in params.values():\n        p.requires_grad_(False)",
        "for p in params.values():\n        p.requires_grad_(p.ndim == 1)",
        f"{LOOP}test_frozen_parameters_stay_bit_for_bit",
    ),
    Mutation(
        "BatchNorm statistics of a frozen backbone change",
        "methods/statistics.py",
        "hold = bool(on) and not on[-1].plan.buffers",
        "hold = bool(on) and on[-1].plan.buffers",
        f"{LOOP}test_batchnorm_of_a_frozen_backbone_keeps_its_statistics",
    ),
    Mutation(
        "weight decay on biases and norms",
        "methods/base.py",
        "weight_decay if p.ndim > 1 and n not in still else 0.0",
        "weight_decay if n not in still else 0.0",
        f"{LOOP}test_weight_decay_spares_biases_and_norms",
    ),
    Mutation(
        "weight decay is applied to IA3's vectors",
        "methods/base.py",
        "weight_decay if p.ndim > 1 and n not in still else 0.0",
        "weight_decay if p.ndim > 1 else 0.0",
        f"{LOOP}test_weight_decay_spares_biases_and_norms",
    ),
    Mutation(
        "detaching does not restore training modes",
        "methods/base.py",
        "m.training = on.modes.get(n, m.training)",
        "pass",
        f"{CELL}[lora-bert]",
    ),
    Mutation(
        "a delta is saved without its head",
        "deltas/io.py",
        '    tensors |= {"base_model.model." + n: p for n, p in head.items()}\n',
        "",
        f"{PEFT}test_ours_open_with_peft[lora]",
    ),
    Mutation(
        "a merge changes the other use of a tied weight",
        "methods/merging.py",
        "tied = untie(model, [m for h in on.handles for m in h.bases()])",
        "tied = UntiedWeights()",
        "tests/test_merge.py::test_other_updates_of_a_shared_weight_are_parted_too",
    ),
    Mutation(
        "a layer that transforms its weight is merged",
        "methods/peft_bridge.py",
        "if gap <= 0.02 * effect + noise * size",
        "if gap <= 20 * effect + noise * size",
        "tests/test_merge.py::test_a_weight_that_its_layer_transforms_is_not_added_to",
    ),
    Mutation(
        "an adapter file with missing tensors is loaded",
        "deltas/io.py",
        "    if added:\n        raise CheckpointError(",
        "    if False:\n        raise CheckpointError(",
        f"{PEFT}test_a_file_that_lacks_tensors_is_refused_and_they_are_named",
    ),
    Mutation(
        "a delta is loaded on another base",
        "deltas/io.py",
        'if on.base != manifest["base"] and not any_base:',
        "if False:",
        "tests/test_refusals.py::test_an_adapter_for_another_base",
    ),
    Mutation(
        "a damaged training state is resumed",
        "training/checkpointing.py",
        "or sha256(folder / f) != digest:",
        "or False:",
        "tests/test_resume.py::test_a_changed_state_is_refused",
    ),
    Mutation(
        "resuming does not restore the random generators",
        "training/checkpointing.py",
        '    set_rng_state(groups["random"], plain["random"])\n',
        "",
        f"{LOOP}test_resuming_restores_generators_and_the_state_of_the_optimiser",
    ),
    Mutation(
        "resuming does not restore the optimiser's state",
        "training/checkpointing.py",
        'groups.get("optimizer", {}) | plain',
        "{} | plain",
        f"{LOOP}test_resuming_restores_generators_and_the_state_of_the_optimiser",
    ),
    Mutation(
        "resuming restarts the epoch",
        "training/checkpointing.py",
        'cast(Any, learner.dataloader).load_state_dict(plain["batches"])',
        "pass",
        "tests/contracts/test_contracts.py::test_ema_resumes_to_the_same_average",
    ),
    Mutation(
        "accumulated gradients are divided by the first micro-batch's count",
        "training/learner.py",
        "cast(Any, torch)._foreach_mul_(grads, unit / count)",
        "pass",
        f"{LOOP}test_accumulation_changes_no_gradient",
    ),
    Mutation(
        "the warm-up is one step late",
        "training/optim.py",
        "if step < first:\n        return (step + 1) / first",
        "if step < first:\n        return step / first",
        f"{LOOP}test_the_schedule_ends_above_zero_and_reaches_its_peak",
    ),
    Mutation(
        "the decay is one step early",
        "training/optim.py",
        "done = (step - first) / max(1, total - first)",
        "done = (step - first + 1) / max(1, total - first)",
        f"{LOOP}test_steps_equal_those_of_plain_pytorch",
    ),
    Mutation(
        "the best weights are not restored",
        "training/learner.py",
        'restore_weights(learner, learner.best["values"])',
        "pass",
        f"{LOOP}test_the_weights_that_are_kept",
    ),
    Mutation(
        'keep="best" keeps the last weights',
        "training/learner.py",
        'if learner.best is None or rank > tuple(learner.best["rank"]):',
        "if True:",
        f"{LOOP}test_the_weights_that_are_kept",
    ),
    Mutation(
        "early stopping waits one validation too long",
        "training/callbacks.py",
        "learner.since_best >= self.patience",
        "learner.since_best > self.patience",
        f"{LOOP}test_early_stopping_counts_validations",
    ),
    Mutation(
        "gradients are clipped after the step",
        "training/learner.py",
        "        clip_gradients(optimizer, own, norm, learner.args.max_grad_norm)\n"
        "        for group in optimizer.param_groups:\n"
        '            group["lr"] = group["peak"] * scale\n'
        "        learner.scaler.step(optimizer)\n",
        "        for group in optimizer.param_groups:\n"
        '            group["lr"] = group["peak"] * scale\n'
        "        learner.scaler.step(optimizer)\n"
        "        clip_gradients(optimizer, own, norm, learner.args.max_grad_norm)\n",
        f"{LOOP}test_steps_equal_those_of_plain_pytorch",
    ),
    Mutation(
        "the order of rows ignores the seed",
        "data/batching.py",
        "np.random.default_rng([seed, epoch])",
        "np.random.default_rng([0, epoch])",
        f"{LOOP}test_the_order_of_rows_follows_seed_and_epoch",
    ),
    Mutation(
        "every epoch has the same order of rows",
        "data/batching.py",
        "np.random.default_rng([seed, epoch])",
        "np.random.default_rng([seed, 0])",
        f"{LOOP}test_the_order_of_rows_follows_seed_and_epoch",
    ),
    Mutation(
        "two processes see the same rows",
        "data/batching.py",
        "rows[self.rank :: self.world]",
        "rows[:: self.world]",
        f"{LOOP}test_the_order_of_rows_follows_seed_and_epoch",
    ),
    Mutation(
        "a leak stays in training",
        "data/splits.py",
        "if keep:\n        return train, leaks",
        "if not keep:\n        return train, leaks",
        "tests/test_data.py::test_leaks_leave_training_and_are_named",
    ),
    Mutation(
        "rows are compared by their first input alone",
        "data/fields.py",
        "return list(zip(*columns)) if columns",
        "return columns[0] if columns",
        "tests/test_fields.py::test_rows_are_compared_by_all_inputs",
    ),
    Mutation(
        "the first of overlapping blocks restores a setting of the process",
        "core/process.py",
        "self.write(self.values[-1][0] if self.values else self.before)",
        "self.write(self.before)",
        "tests/test_speed.py::test_a_setting_of_the_process_holds_until_the_last_of_overlapping_blocks_ends",
    ),
    Mutation(
        "the further models of a run are not saved",
        "runs.py",
        "if fingerprint(model) != run.built.get(name):",
        "if False:",
        "tests/test_outside.py::test_every_verb_knows_a_task_and_a_recipe_from_outside",
    ),
    Mutation(
        "predictions come sorted by length",
        "tasks/base.py",
        "yield batch, outputs, index",
        "yield batch, outputs, np.arange(i, i + len(index))",
        f"{LOOP}test_predictions_come_in_the_order_of_the_input",
    ),
]

# In a child of the preloaded process: modules imported from the checkout are replaced by those of the copy.
PYTEST = """
import os, sys
root, tests = sys.argv[1], sys.argv[2:]
for name in [n for n in sys.modules if n.partition(".")[0] in ("ftkit", "tools", "conftest")]:
    del sys.modules[name]
sys.path.insert(0, root)
os.environ["PYTHONPATH"] = root
os.chdir(root)
import ftkit, pytest
assert ftkit.__file__.startswith(root), ftkit.__file__
sys.exit(pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:warnings", "--tb=line", *tests]))
"""


def plant(mutation: Mutation, package: Path) -> str:
    "Insert a fault into a copy of the package; returns the original text. ValueError unless `old` occurs exactly once."
    path = package / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.file} has {text.count(mutation.old)} matches for: {mutation.what}")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return text


def copied(folder: Path) -> Path:
    "A copy of the files that the tests need; the checkpoints are symlinked."
    for name in ("ftkit", "tests", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "zoo", "bench"))
    (folder / "ftkit" / "zoo").symlink_to(ROOT / "ftkit" / "zoo", target_is_directory=True)
    shutil.copy(ROOT / "settings.ini", folder)
    (folder / "nbs").mkdir()
    return folder.resolve()


def ask(warm: Warm, root: Path, tests: str) -> Done:
    "Run tests on the copy, in their own process."
    return warm.run(
        PYTEST,
        root,
        *tests.split(),
        cwd=root,
        env=dict(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1")),
    )


def failed(done: Done) -> bool:
    "Whether tests ran and one of them failed: pytest's exit status 1, and a line that names it."
    return done.returncode == 1 and "\nFAILED " in done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults whose description contains all of these words")
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if all(w in m.what for w in words)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Warm() as warm:
        root = copied(Path(folder))
        sound = ask(warm, root, " ".join(dict.fromkeys(" ".join(m.tests for m in chosen).split())))
        print(sound.stdout.strip().splitlines()[-1], "without a fault")
        if sound.returncode:
            sys.exit(f"The named tests fail without a fault:\n{sound.stdout[-3000:]}{sound.stderr[-3000:]}")
        survivors, cpu = [], sound.cpu
        for mutation in chosen:
            text = plant(mutation, root / "ftkit")
            done = ask(warm, root, mutation.tests)
            (root / "ftkit" / mutation.file).write_text(text, encoding="utf-8")
            cpu += done.cpu
            print(
                f"{'caught' if failed(done) else 'MISSED':8}{done.cpu:6.1f} s of CPU  {mutation.what}"
                f" (ftkit/{mutation.file})",
                flush=True,
            )
            if not failed(done):
                survivors.append(mutation.what)
                print(done.stdout[-1500:] + done.stderr[-1500:])
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught in {cpu:.0f} s of CPU")
    sys.exit(1 if survivors or not chosen else 0)


if __name__ == "__main__":
    main()
