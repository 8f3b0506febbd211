# %%
#| hide
# Colab only: install ftkit next to the preinstalled torch
import sys
if "google.colab" in sys.modules:
    %pip install -q "ftkit @ git+https://github.com/ftkit/ftkit"

# %% [md]
# Case: chest X-rays

> A small set of X-rays, a model that must find the sick, and a hospital with another device

# %% [md]
- **You will** work a medical case through: a baseline, gradual unfreezing with medical augmentation, a threshold, a calibration, another device, and a picture of where the model looks.
- **You need** [image classification](../tasks/50_image_classification.ipynb), [gradual unfreezing](../methods/25_gradual_unfreeze.ipynb), [evaluation](../74_evaluation.ipynb).
- **Runs in** about 60 s on a laptop; 40 minutes to read.
- **Paper** Kermany et al. 2018, [pneumonia in X-rays](https://doi.org/10.1016/j.cell.2018.02.010); Zech et al. 2018, [models across hospitals](https://doi.org/10.1371/journal.pmed.1002683).

# %%
import os
from pathlib import Path
import numpy as np
import ftkit as ft
from ftkit.data.chests import chests
from ftkit.data.pictures import of_values
from ftkit.evaluation import answers, calibration, confusion, cooled, most_wrong, temperature
from ftkit.gallery import gallery
from ftkit.saliency import occlusion, overlay
from ftkit.show import bars, curves, table
from ftkit.tasks.image_classification import Ranking, Threshold

# %% [md]
## The idea

# %% [md]
The task is the one that medical machine learning meets most often: a few hundred labelled pictures from one place, a finding that is faint, classes that are uneven, and a use somewhere else. Four questions decide whether a model may be shown to anyone, and accuracy is none of them. How many of the sick does it find, at how many false alarms? Does 80 % mean 80 %? What happens with pictures of another device? And what does it look at?

**The pictures here are generated**, and say so. Where the real X-rays of PneumoniaMNIST are at hand (set `FTKIT_DATA`), the last section runs on those. Nothing on this page may be used on a patient.

# %% [md]
## The data

# %%
train, valid, test = chests(300, seed=1, share=0.6), chests(200, seed=2, share=0.6), chests(400, seed=3, share=0.6)
elsewhere = chests(400, device="B", seed=4, share=0.6)
ask = dict(task="image-classification", positive="finding", metric="auc", seed=0)
ft.show_batch("resnet-mini", train, augment="medical", n=12)

# %% [md]
Flips are no part of `medical`: a mirrored chest has its heart on the wrong side, and a model that was shown such ones learns to look past a finding that matters.

# %% [md]
## From head to trunk

# %%
def judged(run, data):
    "AUC, sensitivity and specificity of a run on some rows."
    a = answers(run, data)
    rank, cut = Ranking(2), Threshold(run.task.threshold)
    import torch
    p = torch.from_numpy(a.p)
    rank.update(p.clamp(1e-9, 1 - 1e-9).logit(), torch.nn.functional.one_hot(torch.from_numpy(a.truth), 2)); cut.update(p[:, 1], torch.from_numpy(a.truth) == 1)
    return {"auc": rank.areas()[1], **cut.compute(), "calibration error": calibration(a)["ece"]}
runs = {"random weights, all trains": ft.finetune("resnet-mini", train, "full", valid=valid, epochs=10, pretrained=False, augment="medical", **ask),
        "head alone": ft.finetune("resnet-mini", train, "head", valid=valid, epochs=10, **ask),
        "gradual unfreezing": ft.finetune("resnet-mini", train, ft.GradualUnfreeze(decay=0.8), valid=valid, epochs=10, augment="medical", **ask)}
rows = [{"model": n, **judged(r, test)} for n, r in runs.items()]
table(rows)

# %%
best = runs["gradual unfreezing"]
assert rows[2]["auc"] > max(rows[0]["auc"], rows[1]["auc"]) - 0.01
best.plot()

# %% [md]
## A threshold is a decision

# %% [md]
Missing a sick one and alarming a healthy one are not the same error. Here the smallest threshold is looked for that leaves nine of ten healthy ones in peace, on the validation part and never on the test.

# %%
held = answers(best, valid)
healthy = np.sort(held.p[held.truth == 0, 1])
at = float(healthy[int(0.9 * len(healthy))])
a = answers(best, test)
found, alone = (a.p[a.truth == 1, 1] >= at).mean(), (a.p[a.truth == 0, 1] < at).mean()
assert abs(alone - 0.9) < 0.1
{"threshold": at, "sensitivity": found, "specificity": alone}

# %%
confusion(a)[1]

# %% [md]
## Can its probabilities be believed?

# %%
t = temperature(held)
before, after = calibration(a), calibration(cooled(a, t))
assert (cooled(a, t).said == a.said).all()
table([{"": "as it says", "calibration error": before["ece"]}, {"": f"at temperature {t:.2f}", "calibration error": after["ece"]}])

# %% [md]
## Another device

# %% [md]
Device B gives darker, softer and grainier pictures, cut closer. No patient is sicker there; only the pictures differ.

# %%
gallery([*test["image"][:4], *elsewhere["image"][:4]], ["device A"] * 4 + ["device B"] * 4, across=4)

# %%
plain = ft.finetune("resnet-mini", train, ft.GradualUnfreeze(decay=0.8), valid=valid, epochs=10, **ask)
shift = [{"model": n, "device": d, **judged(r, rows_)} for n, r in (("without augmentation", plain), ("medical augmentation", best)) for d, rows_ in (("A", test), ("B", elsewhere))]
drop = {n: next(r["auc"] for r in shift if r["model"] == n and r["device"] == "A") - next(r["auc"] for r in shift if r["model"] == n and r["device"] == "B") for n in ("without augmentation", "medical augmentation")}
assert drop["without augmentation"] > 0.01  # a shift that costs nothing would be none
table(shift)

# %% [md]
What helps is a little of the new place. Forty labelled pictures from device B, from where the model stands:

# %%
local = chests(40, device="B", seed=5, share=0.6)
near = ft.finetune("resnet-mini", ft_concatenated := __import__("datasets").concatenate_datasets([train, local]), ft.GradualUnfreeze(decay=0.8), valid=valid, epochs=10, augment="medical", **ask)
table([{"trained on": "device A", **judged(best, elsewhere)}, {"trained on": "device A, and 40 of B", **judged(near, elsewhere)}])

# %% [md]
## Where does it look?

# %%
sick = [i for i in np.argsort(-a.p[:, 1]) if a.truth[i] == 1][:4]
wrong = [i for i in np.argsort(-a.p[:, 1]) if a.truth[i] == 0][:2]
shown = [test["image"][int(i)] for i in (*sick, *wrong)]
drawn = [best.task.encode([p], best.processor).pictures[0] for p in shown]
gallery([*drawn, *(overlay(d, occlusion(best, p, "finding")) for d, p in zip(drawn, shown))], ["finding"] * 4 + ["clear, alarmed"] * 2 + ["where it looks"] * 6, across=6)

# %% [md]
## On real X-rays

# %%
file = Path(os.environ.get("FTKIT_DATA", "data")) / "pneumonia_mnist" / "pneumonia_mnist.npz"
if file.exists():
    z = np.load(file)
    part = lambda n: of_values(list(z[f"{n}_images"]), z[f"{n}_labels"], ["normal", "pneumonia"])
    some = part("train").shuffle(seed=0).select(range(200))
    real = ft.finetune("resnet-mini", some, "gradual_unfreeze", valid=part("val"), epochs=8, augment="medical", task="image-classification", metric="auc", seed=0)
    print(f"AUC on {len(z['test_labels'])} test pictures from 200 for training: {judged(real, part('test'))}")
else: print("The real X-rays are not here; set FTKIT_DATA to a folder with pneumonia_mnist/pneumonia_mnist.npz.")

# %% [md]
## See also

# %% [md]
- [Generated chests](../data/67_chests.ipynb): how the pictures are made
- [Saliency](../76_saliency.ipynb): three ways to ask where a model looks
