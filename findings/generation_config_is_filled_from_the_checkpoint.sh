#!/usr/bin/env bash
# Guess: a GenerationConfig of one's own, given to generate(), replaces the checkpoint's.
# Seen: fields that are not set in it are filled from the checkpoint's. A summariser's min_length, or its suppressed
# tokens, hold for a model that was tuned to answer with one word, although the call names a configuration that says
# nothing of them; only exchanging model.generation_config frees the model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import torch
import transformers
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

print("transformers", transformers.__version__)
torch.manual_seed(0)
config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
model = T5ForConditionalGeneration(config).eval()
ids = torch.tensor([[5, 6, 7, 1]])
own = GenerationConfig(max_new_tokens=1, do_sample=False, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)


def written():
    return int(model.generate(ids, generation_config=own)[0, 1])


plain = written()
model.generation_config.suppress_tokens = [plain]
filled = written()
model.generation_config = GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
freed = written()
print(f"first token with a configuration of one's own: {plain}; with that token suppressed in the checkpoint's: {filled};")
print(f"with the checkpoint's exchanged: {freed}")
assert plain == freed != filled, "the behaviour has changed"
EOF
# Output with the versions above:
#   transformers 5.23.0
#   first token with a configuration of one's own: 20; with that token suppressed in the checkpoint's: 30;
#   with the checkpoint's exchanged: 20
