#!/usr/bin/env bash
# Guess: importing peft, with bitsandbytes installed and no quantised model in sight, changes nothing in other libraries.
# Seen: peft imports bitsandbytes (peft/helpers.py), bitsandbytes decorates functions with torch.compile, and setting up the
# compiler switches off the argument checks of torch.distributions for the whole process. A Beta distribution with both
# parameters zero, refused before the import, is accepted after it; torchvision's MixUp(alpha=0.0) draws from one and then
# blends every image half and half.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 peft==0.21.2 bitsandbytes==0.50.2
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import torch
from torchvision.transforms import v2

def mixed():
    torch.manual_seed(0)
    images = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    try:
        out, labels = v2.MixUp(alpha=0.0, num_classes=2)(images, torch.tensor([0, 1]))
    except ValueError as e:
        return "ValueError: " + str(e).splitlines()[0][:60]
    return f"labels {labels.tolist()}"

first = mixed()
import peft
second = mixed()
import bitsandbytes
print("torch", torch.__version__, "peft", peft.__version__, "bitsandbytes", bitsandbytes.__version__)
print("before import peft:", first)
print("after import peft: ", second)
assert first.startswith("ValueError"), "the behaviour has changed"
assert second.startswith("labels [[0.5"), "the behaviour has changed"
EOF
# Output with the versions above:
#   before import peft: ValueError: Expected parameter concentration (Tensor of shape (1, 2)) of
#   after import peft:  labels [[0.5, 0.5], [0.5, 0.5]]
