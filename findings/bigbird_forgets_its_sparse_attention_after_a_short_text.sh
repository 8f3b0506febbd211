#!/usr/bin/env bash
# Guess: what a model in evaluation mode answers depends on its input alone.
# Seen: BigBird with block-sparse attention switches itself to full attention when it meets a text that is too short
# for its blocks, and never switches back: the same long text is answered otherwise before and after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 transformers==5.23.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import torch
import transformers
from transformers import BigBirdConfig, BigBirdModel

print("transformers", transformers.__version__)
torch.manual_seed(0)
config = BigBirdConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=512,
                       block_size=16, num_random_blocks=2, sep_token_id=3, attention_type="block_sparse")
model = BigBirdModel(config).eval()
for p in model.parameters():
    p.data += 0.1 * torch.randn_like(p)
long, short = torch.randint(5, 50, (1, 256)), torch.randint(5, 50, (1, 16))
with torch.no_grad():
    first = model(long).last_hidden_state
    again = model(long).last_hidden_state
    model(short)
    after = model(long).last_hidden_state
print(f"the same long text twice: {float((first - again).abs().max()):.4f} apart; after a short one: {float((first - after).abs().max()):.2f}")
print("attention now:", model.attention_type)
assert torch.allclose(first, again, atol=1e-4) and (first - after).abs().max() > 0.01, "the behaviour has changed"
EOF
# Output with the versions above (and transformers' own note that it changes the attention type):
#   transformers 5.23.0
#   the same long text twice: 0.0000 apart; after a short one: 0.12
#   attention now: original_full
