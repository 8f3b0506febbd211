"""Complete jobs in their own processes: run `job.py` once, with its caches in a given folder"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def job(*args, home) -> dict:
    "The measurements of one job; `args` as on its command line, `home` is the folder of its caches."
    env = dict(os.environ, FTKIT_HOME=str(home), PYTHONWARNINGS="ignore")
    command = [sys.executable, str(HERE / "job.py"), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise SystemExit(f"{' '.join(map(str, args))} failed:\n{done.stderr[-2000:]}") from None
