#!/usr/bin/env bash
# Guess: importing BERT's model class from transformers loads PyTorch and the files that BERT needs.
# Seen: it also loads the scheduler of continuous batching, through it PyTorch's compiler front end (torch._dynamo) with
# sympy, and the losses of object detection, through them scipy.optimize and torchvision: about two thousand modules
# that torch alone had not loaded. Every script that only wants a classifier pays for them at its start.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 scipy==1.17.1 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import sys
import torch
before = set(sys.modules)
from transformers import BertForSequenceClassification
import transformers
new = set(sys.modules) - before
print("torch", torch.__version__, "transformers", transformers.__version__)
wanted = ["transformers.generation.continuous_batching", "torch._dynamo", "sympy", "scipy.optimize", "torchvision", "accelerate"]
for name in wanted:
    print(f"{name}: {'loaded' if name in new else 'not loaded'}")
print(len(new), "modules in all;", sum(n.startswith("transformers.models.") for n in new), "of them in transformers.models")
assert all(name in new for name in wanted), "the behaviour has changed"
assert len(new) > 1500, "the behaviour has changed"
EOF
# Output with the versions above (the number of modules depends on what else is installed):
#   transformers.generation.continuous_batching: loaded
#   torch._dynamo: loaded
#   sympy: loaded
#   scipy.optimize: loaded
#   torchvision: loaded
#   accelerate: loaded
#   1992 modules in all; 8 of them in transformers.models
