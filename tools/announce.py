"""Prints the download and disk size of the installation before it starts; exits if Python is too old or disk is low"""

import platform
import shutil
import sys
from pathlib import Path

# Measured on Linux with Python 3.11 and constraints.txt; elsewhere torch's wheel contains no CUDA libraries.
DOWNLOAD, DISK = (3.3, 7.3) if platform.system() == "Linux" and platform.machine() == "x86_64" else (0.6, 2.0)

venv = Path(sys.argv[1])
if sys.version_info < (3, 11):
    sys.exit(f"ftkit needs Python 3.11 or newer, but this is {platform.python_version()}: make demo PYTHON=python3.12")
if (venv / "lib").exists() and any((venv / "lib").glob("*/*/torch")):
    print(f"Updating {venv}: pip downloads only what changed.", flush=True)
else:
    free = shutil.disk_usage(venv.absolute().parent).free / 1e9
    print(
        f"Setting up {venv}: pip will download about {DOWNLOAD} GB (most of it torch) and {venv} will take about {DISK}"
        f" GB of disk; {free:.0f} GB are free.\nCached packages are not downloaded again. This takes some"
        " minutes, once.",
        flush=True,
    )
    if free < DISK:
        sys.exit(f"Not enough disk space: {DISK} GB are needed, {free:.1f} GB are free.")
