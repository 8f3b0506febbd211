#!/usr/bin/env bash
# Guess: Whisper's English normaliser writes numbers in one form, so that "ten" and "10", "one two three" and "1 2 3"
# count as equal in a word error rate.
# Seen: spelled digits in a row are joined to one number, written ones are not, and the first of them may even be spelled
# out; "o'clock" becomes a zero that is appended to the hour. A perfect transcript with digits has a word error rate of 3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0 jiwer==4.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import jiwer
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

print("transformers", version("transformers"), "jiwer", version("jiwer"))
normal = EnglishTextNormalizer({})
seen = {text: normal(text) for text in ("one two three", "1 2 3", "twelve three", "ten o'clock", "twenty one", "21")}
for text, out in seen.items():
    print(f"{text!r} -> {out!r}")
rate = jiwer.wer(seen["one two three"], seen["1 2 3"])
print("WER of '1 2 3' for 'one two three':", rate)
assert seen["one two three"] == "123" and seen["1 2 3"] == "one 2 3", "the behaviour has changed"
assert seen["twelve three"] == "123" and seen["ten o'clock"] == "100 clock" and rate == 3.0, "the behaviour has changed"
EOF
# Output with the versions above:
#   transformers 5.23.0 jiwer 4.0.0
#   'one two three' -> '123'
#   '1 2 3' -> 'one 2 3'
#   'twelve three' -> '123'
#   "ten o'clock" -> '100 clock'
#   'twenty one' -> '21'
#   '21' -> '21'
#   WER of '1 2 3' for 'one two three': 3.0
