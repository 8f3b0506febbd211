"A run killed with SIGKILL goes on to the weights it would have had; the same seed gives the same weights."

import os
import signal

import conftest
import pytest
import torch

import ftkit as ft
from ftkit.core import sha256
from ftkit.datasets.reviews import reviews

FIT = (
    f"import sys{conftest.ONE_WAY}"
    + """
import os, signal
import ftkit as ft
from ftkit.datasets.reviews import reviews
out, kill = sys.argv[1], int(sys.argv[2])
class Kill(ft.Callback):
    def after_step(self, learner):
        if learner.step_count == kill:
            os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "resume":
    ft.resume(out, callbacks=[Kill()])
else:  # ten steps an epoch, so that the end of one lies between a saved state and the next
    options = dict(steps=24, batch_size=8, save_steps=5, show_progress=False, output_dir=out)
    ft.finetune("bert-mini", reviews(100, difficulty=1), method=sys.argv[4], callbacks=[Kill()], **options)
"""
)


def child(out, kill=0, how="fit", method="lora"):
    return conftest.child(FIT, out, kill, how, method)


def weights(out):
    return {p.relative_to(out).as_posix(): sha256(p) for p in sorted((out / "delta").rglob("*.safetensors"))}


@pytest.mark.sweep(least=4)
@pytest.mark.parametrize(
    "method, kills",
    [
        ("lora", (13,)),
        ("full", (3, 17)),
        ("freeze", (9,)),
        ("adalora", (13,)),
        ("sparse", (7,)),
        ("diff_pruning", (17,)),
        ("gradual_unfreeze", (11,)),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, method, kills):
    whole = child(tmp_path / "whole", method=method)
    assert whole.returncode == 0, whole.stderr[-2000:]
    out = tmp_path / "killed"
    for i, at in enumerate(kills):
        done = child(out, kill=at, how="resume" if i else "fit", method=method)
        assert done.returncode == -signal.SIGKILL
    last = child(out, how="resume", method=method)
    assert last.returncode == 0, last.stderr[-2000:]
    assert weights(out) == weights(tmp_path / "whole") and weights(out)


@pytest.mark.usefixtures("one_way")
def test_same_seed_twice_gives_the_same_bits():
    runs = [
        ft.finetune("bert-mini", reviews(100), method="full", steps=6, batch_size=8, seed=s, show_progress=False)
        for s in (4, 4, 5)
    ]
    states = [r.model.state_dict() for r in runs]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(not torch.equal(states[0][n], states[2][n]) for n in states[0])


@pytest.mark.fast
def test_killed_while_saving_leaves_a_whole_state(tmp_path):
    "At whichever byte a save dies, the folder opens at an earlier step."
    from ftkit.data.batching import DataLoader
    from ftkit.data.encoded import DenseColumn, EncodedDataset
    from ftkit.training import learner as train

    rows = EncodedDataset({"row": DenseColumn(range(64))})
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

    def make():
        torch.manual_seed(0)

        def step(learner, b):
            return (learner.model(b["x"]).square().sum(), len(b["x"]))

        return train.Learner(
            torch.nn.Linear(4, 1),
            DataLoader(rows, lambda r, i: {"x": x[torch.as_tensor(i)]}, 8),
            step,
            steps=16,
            lr=0.1,
            device="cpu",
            output_dir=tmp_path,
            save_steps=4,
        )

    whole = make().fit()
    calls = {"n": 0}
    real = os.replace
    for fail_at in range(1, 8):
        for p in tmp_path.glob("*"):
            p.unlink()
        calls["n"] = 0

        def replace(a, b):
            calls["n"] += 1
            if calls["n"] == fail_at:
                raise OSError(28, "No space left on device")
            return real(a, b)

        os.replace = replace
        try:
            make().fit()
        except ft.FtError as e:
            assert "No space left" in str(e)
        finally:
            os.replace = real
        learner = make()
        if (tmp_path / "last.json").exists():
            learner.resume()
        learner.fit()
        assert all(torch.equal(a, b) for a, b in zip(learner.model.parameters(), whole.model.parameters()))


@pytest.mark.fast
def test_a_changed_state_is_refused(tmp_path):
    ft.finetune(
        "bert-mini",
        reviews(100),
        method="linear_probe",
        steps=3,
        batch_size=8,
        output_dir=tmp_path,
        save_steps=3,
        show_progress=False,
    )
    state = next((tmp_path / "state").glob("*.safetensors"))
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)
    with pytest.raises(ft.FtError, match="changed since it was saved"):
        ft.resume(tmp_path)
