#!/usr/bin/env bash
# Guess: AutoTokenizer.from_pretrained fails on a folder that holds a model and no tokenizer files.
# Seen: for BERT, GPT-2, RoBERTa and others it returns a tokenizer of special tokens only, without an error: every
# word is unknown, and a model tuned with it sees no text at all. For Llama it fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'EOF' 2>/dev/null
import transformers
from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaModel, RobertaConfig, RobertaModel

print("transformers", transformers.__version__)
sizes = dict(vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
found = {}
for kind, model in (("bert", BertModel(BertConfig(**sizes))), ("roberta", RobertaModel(RobertaConfig(**sizes))), ("llama", LlamaModel(LlamaConfig(**sizes)))):
    model.save_pretrained(kind)
    try:
        tokenizer = AutoTokenizer.from_pretrained(kind)
        ids = tokenizer("a fine film", add_special_tokens=False)["input_ids"]
        found[kind] = f"{len(tokenizer)} tokens, 'a fine film' becomes {ids}"
    except Exception as e:
        found[kind] = type(e).__name__
    print(f"{kind}: {found[kind]}")
assert "tokens" in found["bert"] and "tokens" in found["roberta"] and "tokens" not in found["llama"], "the behaviour has changed"
EOF
# Output with the versions above:
#   transformers 5.23.0
#   bert: 5 tokens, 'a fine film' becomes [1, 1, 1]
#   roberta: 5 tokens, 'a fine film' becomes []
#   llama: ValueError
