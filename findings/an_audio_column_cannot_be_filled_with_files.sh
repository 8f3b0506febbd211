#!/usr/bin/env bash
# Guess: a column of datasets.Audio(decode=False) holds paths and bytes that are not decoded, so no decoder is needed to
# fill one with files.
# Seen: encoding such rows imports torchcodec before it looks at them, and fails where that is not installed (an
# Image(decode=False) column likewise needs Pillow). A plain column of {path, bytes} can be cast to the same feature
# without either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0
cd "$folder"
"$folder/venv/bin/python" - <<'EOF'
import datasets
from datasets import Audio, Dataset, Features, Image

print("datasets", datasets.__version__)
rows = {"file": [{"path": "a.wav", "bytes": None}, {"path": None, "bytes": b"RIFF"}]}


def outcome(make):
    try:
        return f"{len(make())} rows"
    except ImportError as e:
        return f"{type(e).__name__}: {e}"


seen = {
    "Audio, from_dict": outcome(lambda: Dataset.from_dict(rows, Features(file=Audio(decode=False)))),
    "Image, from_dict": outcome(lambda: Dataset.from_dict(rows, Features(file=Image(decode=False)))),
    "Audio, cast": outcome(lambda: Dataset.from_dict(rows).cast_column("file", Audio(decode=False))),
}
for name, what in seen.items():
    print(f"{name}: {what}")
assert "torchcodec" in seen["Audio, from_dict"], "the behaviour has changed"
assert seen["Audio, cast"] == "2 rows", "the behaviour has changed"
EOF
# Output with the versions above:
#   datasets 5.2.0
#   Audio, from_dict: ImportError: To support encoding audio data, please install 'torchcodec'.
#   Image, from_dict: ImportError: To support encoding images, please install 'Pillow'.
#   Audio, cast: 2 rows
