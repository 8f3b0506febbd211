"""One process preloads all heavy imports and forks for each job: pages and tests start in tenths of a second

`with Warm() as warm: warm.run(code, *argv)` runs Python code as `python -c` does, in its own child process that shares
only the imported modules with the others. Where the system cannot fork, a new interpreter is started."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORKS = hasattr(os, "fork") and sys.platform != "darwin"  # Apple's frameworks do not support fork
STOP = 600  # seconds after which a job is considered hung
HEAVY = """torch torchvision torchvision.transforms.v2 timm transformers transformers.models.auto transformers.pipelines
    transformers.models.bert.modeling_bert transformers.models.gpt2.modeling_gpt2 transformers.models.t5.modeling_t5
    transformers.generation datasets accelerate safetensors.torch pandas pyarrow.parquet sklearn.linear_model
    sklearn.metrics matplotlib.pyplot matplotlib_inline.backend_inline PIL.Image psutil IPython execnb.shell
    execnb.nbio nbdev.clean torch.utils.checkpoint"""


@dataclass
class Done:
    "The result of a job: `returncode` is -9 if it was killed, `cpu` includes its children's seconds."

    returncode: int
    stdout: str
    stderr: str
    cpu: float
    wall: float
    stopped: bool = False  # by the time limit


def warm_up():
    """Import the modules that pages and tests use.

    Nothing is computed here: a fork of a process with running compute threads would hang.
    """
    sys.path.insert(0, str(ROOT))
    from ftkit.core import import_library

    import_library("peft")  # as ftkit imports it: without bitsandbytes
    for name in HEAVY.split():
        try:
            import_module(name)
        except ImportError:
            pass  # an extra that is not installed, or a different version
    for path in sorted((ROOT / "ftkit").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not path.name.startswith("_modidx"):
            import_module(name)


def become(task: dict) -> int:
    "Set up a new child as requested and run the code; returns the exit status."
    os.setsid()
    for stream, fd in (("stdout", 1), ("stderr", 2)):
        file = os.open(task[stream], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    sys.path[:0] = [p for p in task["env"].get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    return run_here(task)


def run_here(task: dict) -> int:
    "Run the code in `__main__` as `python -c` does; returns the exit status."
    import types

    sys.argv = ["-c", *task["argv"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
    try:
        exec(compile(task["code"], "<string>", "exec"), main.__dict__)
        return 0
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return int(e.code or 0)
        print(e.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    return 1


def serve():
    "Serve requests, one JSON line each on stdin, with one JSON line each on stdout; ends at the end of stdin."
    import atexit
    import gc
    import selectors

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of imports must not mix with responses
    warm_up()
    gc.collect()
    gc.freeze()  # children do not scan the imported objects in garbage collection
    asked, lines, children, rest = selectors.DefaultSelector(), sys.stdin.fileno(), {}, b""
    asked.register(lines, selectors.EVENT_READ)
    print("ready", file=answers, flush=True)
    while True:
        if asked.select(timeout=0.02 if children else None):
            piece = os.read(lines, 1 << 20)
            if not piece:
                break
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                task = json.loads(line)
                pid = os.fork()
                if not pid:
                    status = 1
                    try:
                        status = become(task)
                        atexit._run_exitfuncs()
                        sys.stdout.flush()
                        sys.stderr.flush()
                    finally:
                        os._exit(status)
                children[pid] = [task, time.perf_counter(), False]
        for pid in list(children):
            task, began, stopped = children[pid]
            took = time.perf_counter() - began
            found, status, used = os.wait4(pid, os.WNOHANG)
            if found:
                del children[pid]
                said = dict(
                    id=task["id"],
                    returncode=os.waitstatus_to_exitcode(status),
                    cpu=used.ru_utime + used.ru_stime,
                    wall=took,
                    stopped=stopped,
                )
                print(json.dumps(said), file=answers, flush=True)
            elif took > task["timeout"] and not stopped:
                children[pid][2] = True
                os.killpg(pid, signal.SIGKILL)
    for pid in children:
        os.killpg(pid, signal.SIGKILL)


class Warm:
    "A preloaded process and its client; several threads may send jobs concurrently."

    def __init__(self, env: dict | None = None):
        self.env, self.numbers, self.waiting, self.lock = (
            env or dict(os.environ),
            itertools.count(),
            {},
            threading.Lock(),
        )
        self.server = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.server:
            self.server.stdin.close()
            self.server.wait()

    def start(self):
        "Start the process at the first job."
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__)), "serve"],
            env=self.env,
            cwd=ROOT,
            text=True,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self.server.stdout.readline() != "ready\n":
            raise RuntimeError("the preloaded process did not start")
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        "Pass every response to the thread that waits for it."
        for line in self.server.stdout:
            answer = json.loads(line)
            event, answers = self.waiting.pop(answer.pop("id"))
            answers.update(answer)
            event.set()
        for event, answers in list(self.waiting.values()):
            answers.update(returncode=1, cpu=0.0, wall=0.0, stopped=False)
            event.set()

    def run(self, code: str, *argv, env: dict | None = None, cwd=None, timeout: float = STOP) -> Done:
        """Run Python code with arguments, and wait for its end; `env` is added to the environment, None removes a
        name.
        """
        whole = {k: v for k, v in {**self.env, **(env or {})}.items() if v is not None}
        task = dict(code=code, argv=[str(a) for a in argv], env=whole, cwd=str(cwd or os.getcwd()), timeout=timeout)
        if not FORKS:
            return fresh(task)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            event, answer, number = threading.Event(), {}, next(self.numbers)
            task |= dict(id=number, stdout=f"{folder}/stdout", stderr=f"{folder}/stderr")
            with self.lock:
                if not self.server:
                    self.start()
                self.waiting[number] = event, answer
                self.server.stdin.write(json.dumps(task) + "\n")
                self.server.stdin.flush()
            event.wait()
            said = {
                name: (
                    Path(task[name]).read_text(encoding="utf-8", errors="replace") if Path(task[name]).exists() else ""
                )
                for name in ("stdout", "stderr")
            }
        return Done(**answer, **said)


def fresh(task: dict) -> Done:
    "Run the job in a new interpreter."
    began = time.perf_counter()
    code = (
        "import time as _t, atexit as _a, sys as _s\n_a.register(lambda: print('\\nCPU seconds', _t.process_time(),"
        " file=_s.stderr))\n" + task["code"]
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *task["argv"]],
            env=task["env"],
            cwd=task["cwd"],
            timeout=task["timeout"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired as e:
        said = [
            (x or b"").decode("utf-8", "replace") if isinstance(x, bytes) else x or "" for x in (e.stdout, e.stderr)
        ]
        return Done(-9, *said, 0.0, time.perf_counter() - began, stopped=True)
    stderr, _, cpu = done.stderr.rpartition("\nCPU seconds ")
    return Done(
        done.returncode, done.stdout, stderr if cpu else done.stderr, float(cpu or 0), time.perf_counter() - began
    )


if __name__ == "__main__" and sys.argv[1:] == ["serve"]:
    serve()
