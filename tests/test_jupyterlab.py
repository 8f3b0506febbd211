"""JupyterLab in a real browser runs pages from top to bottom: no error, nothing on stderr, every cell executed"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import NBS, ROOT, drawn, pages, whole

START = "start/10_quickstart.ipynb"
MOST = 10  # pages with --all
MINUTES = 10  # after which a page is taken to hang
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # a cell that is out of sight is in the document too
}


def browser():
    "Where a Chromium or Chrome is, or None."
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("FTKIT_BROWSER") or next(filter(None, map(shutil.which, names)), None)


def chosen(all_of_them: bool) -> list[str]:
    """The pages to run: one drawn among the first page and those of methods; with --all the first, one of methods,
    and others drawn.
    """
    methods = [page for page in pages() if page.startswith("methods/")]
    if not all_of_them:
        return drawn([START, *methods], 1, "a page in JupyterLab")
    some = [START, *drawn(methods, 1, "a method in JupyterLab")]
    return some + drawn([page for page in pages() if page not in some], MOST - len(some), "pages in JupyterLab")


def pytest_generate_tests(metafunc):
    if "notebook" in metafunc.fixturenames:
        named = os.environ.get("FTKIT_PAGES", "").split()
        metafunc.parametrize("notebook", named or chosen(whole(metafunc.config)))


def own_settings(folder: Path) -> dict[str, str]:
    "JupyterLab's own folders, with settings that ask for nothing outside; as an environment."
    names = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "IPYTHONDIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
    )
    own = {name: str(folder / name.lower()) for name in names}
    for name, text in SETTINGS.items():
        file = Path(own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return own


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab of its own on a copy of the project: its address and folder, and a browser window."
    folder = tmp_path_factory.mktemp("lab")
    root = folder / "project"
    for name in ("nbs", "ftkit", "bench"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | own_settings(folder) | dict(PATH=path, PYTHONPATH=str(root), FTKIT_HOME=str(folder / "home"))
    for name in (
        "MPLBACKEND",
        "IN_TEST",
    ):  # the kernel chooses its own way to draw, and progress is shown as users see it
        env.pop(name, None)
    log = open(folder / "lab.log", "w", encoding="utf-8")
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyter",
            "lab",
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            f"--port={port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--ServerApp.disable_check_xsrf=True",
            f"--ServerApp.root_dir={root}",
        ],
        env=env,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, folder / "lab.log")
        with playwright.sync_playwright() as play:
            window = play.chromium.launch_persistent_context(
                str(folder / "profile"),
                headless=True,
                executable_path=browser(),
                viewport=dict(width=1400, height=1000),
                args=[
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-quic",
                    "--no-first-run",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                ],
            )
            yield SimpleNamespace(address=address, root=root, window=window)
            window.close()
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


def wait_for(address: str, server: subprocess.Popen, log: Path):
    "Until JupyterLab answers."
    for _ in range(240):
        try:
            return urllib.request.urlopen(f"{address}/api/status", timeout=2).read()
        except OSError:
            assert server.poll() is None, log.read_text(encoding="utf-8")[-2000:]
            time.sleep(0.5)
    pytest.fail("JupyterLab did not start")


def run_all(lab, notebook: str) -> list[str]:
    "Open a notebook, choose Run All Cells, wait for its end and save; returns what the page asked for outside."
    outside = []

    def only_here(route):
        if route.request.url.startswith((lab.address, lab.address.replace("http", "ws"), "data:", "blob:")):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    page = lab.window.new_page()
    page.route("**/*", only_here)
    page.set_default_timeout(90_000)
    page.goto(f"{lab.address}/lab/tree/nbs/{notebook}?reset")
    page.wait_for_selector(".jp-Notebook")
    # The status bar, not the notebook's own indicator: that one says idle before the kernel is connected.
    ready = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\) \| Idle$")).first
    ready.wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)"
    page.wait_for_function(f"{prompts}.some(t => t !== '[ ]:' && t !== '')")
    page.wait_for_function(f"{prompts}.every(t => t !== '[*]:')", timeout=MINUTES * 60_000)
    ready.wait_for()
    page.keyboard.press("Control+s")
    page.get_by_text("Saving completed").first.wait_for()
    page.close()
    return [url for url in outside if not url.startswith("chrome")]


def end_kernels(address: str):
    "So that a kernel's memory is free for the next page's."
    for kernel in json.loads(urllib.request.urlopen(f"{address}/api/kernels").read()):
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/kernels/{kernel['id']}", method="DELETE"))


@pytest.mark.slow
def test_run_all_cells(lab, notebook):
    outside = run_all(lab, notebook)
    end_kernels(lab.address)
    cells = [
        c
        for c in json.loads((lab.root / "nbs" / notebook).read_text(encoding="utf-8"))["cells"]
        if c["cell_type"] == "code" and "".join(c["source"]).strip()
    ]
    outputs = [out for c in cells for out in c["outputs"]]
    errors = [out for out in outputs if out["output_type"] == "error"]
    assert not errors, "\n".join(errors[0]["traceback"])[-2000:]
    assert all(c["execution_count"] for c in cells), "a cell did not run"
    pink = ["".join(out["text"]) for out in outputs if out.get("name") == "stderr"]
    assert not pink, "on pink, as JupyterLab shows what goes to stderr:\n" + "\n".join(pink)[-2000:]
    assert sum(bool(c["outputs"]) for c in cells) >= 3
    assert not outside, "the page asked for something outside"


def test_which_pages_are_drawn():
    some = chosen(True)
    assert len(set(some)) == MOST and START in some and any(page.startswith("methods/") for page in some)
    assert len(chosen(False)) == 1 and all((NBS / page).exists() for page in some + chosen(False))


playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
if not browser():
    pytest.skip(
        "no Chromium or Chrome is installed (Debian: apt install chromium; or set FTKIT_BROWSER)",
        allow_module_level=True,
    )
