#!/usr/bin/env bash
# Guess: layers_to_transform=[0] restricts LoRA to the first layer, whatever form target_modules has.
# Seen: where target_modules names modules by their full paths, the restriction is ignored without a word, and
# every layer that is named gets an adapter; with the modules' last names it holds.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0 peft==0.21.2
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import peft
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel

print("peft", peft.__version__)
sizes = dict(vocab_size=100, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16)


def layers(target_modules):
    model = get_peft_model(BertModel(BertConfig(**sizes)), LoraConfig(target_modules=target_modules, layers_to_transform=[0], layers_pattern="layer"))
    return sorted({n.split(".layer.")[1][0] for n, _ in model.named_modules() if n.endswith("lora_A")})


short, whole = layers(["query"]), layers([f"encoder.layer.{i}.attention.self.query" for i in range(3)])
print("last names:", short, " full paths:", whole)
assert short == ["0"] and whole == ["0", "1", "2"], "the behaviour has changed"
EOF
# Output with the versions above:
#   peft 0.21.2
#   last names: ['0']  full paths: ['0', '1', '2']
