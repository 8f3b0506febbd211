#!/usr/bin/env bash
# Guess: two threads can load models at the same time; at worst they wait for each other.
# Seen: from_pretrained replaces PreTrainedModel.tie_weights for the whole process while it builds a model. If a second
# load begins during the first and ends after it, the replacement stays, and every model that is loaded later in the
# process has an output layer of its own, with other weights than its embeddings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import threading

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

print("transformers", transformers.__version__)
GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16)).save_pretrained("gpt")


def tied():
    model = GPT2LMHeadModel.from_pretrained("gpt")
    return model.lm_head.weight is model.transformer.wte.weight


begun, ended = threading.Event(), threading.Event()


class First(GPT2LMHeadModel):
    def __init__(self, config):
        begun.set()
        second_begun.wait(30)
        super().__init__(config)


class Second(GPT2LMHeadModel):
    def __init__(self, config):
        second_begun.set()
        ended.wait(30)
        super().__init__(config)


second_begun = threading.Event()
before = tied()
first = threading.Thread(target=lambda: (First.from_pretrained("gpt"), ended.set()))
second = threading.Thread(target=lambda: (begun.wait(30), Second.from_pretrained("gpt")))
for thread in (first, second):
    thread.start()
for thread in (first, second):
    thread.join()
after = tied()
print("tied before:", before, " after two overlapping loads:", after)
assert before and not after, "the behaviour has changed"
EOF
# Output with the versions above:
#   transformers 5.23.0
#   tied before: True  after two overlapping loads: False
