"""Says what setting up will download and take, before it does; stops where Python is too old or the disk too full"""

import platform
import shutil
import sys
from pathlib import Path

# Measured on Linux with Python 3.11 and constraints.txt; elsewhere torch's wheel carries no CUDA libraries.
DOWNLOAD, DISK = (3.3, 7.3) if platform.system() == "Linux" and platform.machine() == "x86_64" else (0.6, 2.0)

venv = Path(sys.argv[1])
if sys.version_info < (3, 11):
    sys.exit(f"ftkit needs Python 3.11 or newer, and this is {platform.python_version()}: make demo PYTHON=python3.12")
if (venv / "lib").exists() and any((venv / "lib").glob("*/*/torch")):
    print(f"Bringing {venv} up to date: pip downloads only what changed.", flush=True)
else:
    free = shutil.disk_usage(venv.absolute().parent).free / 1e9
    print(
        f"Setting up {venv}: pip will download about {DOWNLOAD} GB (most of it torch) and {venv} will take about {DISK}"
        f" GB of disk; {free:.0f} GB are free.\nWhat pip has in its cache is not downloaded again. It takes some"
        " minutes, once.",
        flush=True,
    )
    if free < DISK:
        sys.exit(f"There is too little room: {DISK} GB are needed, {free:.1f} GB are free.")
