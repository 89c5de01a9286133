"""A fork waits for imports under way, and threads of ours import nothing that it does not wait for."""

import os
import subprocess
import sys
import threading
import time

import pytest

from fastload import imports
from tests import preloaded
from tests.loader.samples import write_shards
from tests.quick import slow_but

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def status_of_child(work) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(child, 0)[1]


def test_a_fork_waits_for_an_import_of_another_thread_and_the_child_can_import():
    begun, done = threading.Event(), []

    def slow_import():
        with imports.whole_imports():
            begun.set()
            time.sleep(0.2)
            done.append(True)

    thread = threading.Thread(target=slow_import)
    thread.start()
    begun.wait()

    def work():
        with imports.whole_imports():
            return done == [True]

    assert status_of_child(work) == 0
    thread.join()
    with imports.whole_imports():
        pass


def test_a_fork_amid_an_import_of_its_own_thread_goes_on():
    with imports.whole_imports():
        assert status_of_child(lambda: imports.import_whole("json").dumps(1) == "1") == 0


def test_a_fork_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(imports, "FORK_WAITS_SECONDS", 0.05)
    begun, go = threading.Event(), threading.Event()

    def hang():
        with imports.whole_imports():
            begun.set()
            go.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait()
    assert status_of_child(lambda: True) == 0
    go.set()
    thread.join()
    assert status_of_child(lambda: True) == 0


FORKS = """
import os, signal, sys, threading, time
import fastload as fl
def use():
    fields = dict(image=fl.Image("jpg", size=16), text=fl.Text("txt"))
    return len(list(fl.Loader(sys.argv[1:], 2, fields, device="cpu", ledger=None, threads=2)))
threads = [threading.Thread(target=use) for _ in range(3)]
for thread in threads: thread.start()
time.sleep({seconds})
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if use() == 8 else 1)
status = os.waitpid(child, 0)[1]
for thread in threads: thread.join()
sys.exit(status >> 8 or status)
"""


@pytest.mark.parametrize("seconds", slow_but([0.02], [0.0, 0.02, 0.1, 0.4]))
def test_a_child_forked_amid_the_first_use_of_other_threads_can_load(tmp_path, seconds):
    """Before, it hung where another thread was amid the first import of the same module."""
    source = write_shards(tmp_path, 16, 8)
    script = FORKS.format(seconds=seconds)
    command = [sys.executable, "-W", preloaded.FORK_MAY_HANG, "-c", script, *source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


AUDITED = """
import io, sys, tarfile, threading
import fastload as fl
from fastload import imports
seen = []
def audit(event, given):
    if event == "import" and threading.current_thread() is not threading.main_thread():
        if not imports._lock._is_owned(): seen.append((threading.current_thread().name, given[0]))
sys.addaudithook(audit)
fields = {"image": fl.Image("img", size=16), "json": fl.Json("json"), "npy": fl.Tensor("npy"),
          "npz": fl.Tensor("npz"), "pth": fl.Tensor("pth"), "label": fl.Int("cls"), "text": fl.Text("txt")}
augment = fl.Augment(mixup=0.3, rotate=5, color_jitter=(0.1, 0.1, 0.1, 0.1))
def use():
    for batch in fl.Loader(sys.argv[2], 2, fields, device="cpu", ledger=None, augment=augment,
                           decode=sys.argv[1]): pass
thread = threading.Thread(target=use); thread.start(); thread.join()
print(sorted(set(seen)))
"""
WRITES = """
import io, sys, tarfile
import numpy as np, torch
from PIL import Image
def written(save):
    file = io.BytesIO(); save(file); return file.getvalue()
picture = Image.new("RGB", (32, 24), "red")
formats = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"]
pictures = [written(lambda f: picture.save(f, one)) for one in formats]
pictures.append(written(lambda f: picture.convert("CMYK").save(f, "JPEG")))
more = {"json": b"{}", "cls": b"1", "txt": b"x", "npy": written(lambda f: np.save(f, np.zeros(3))),
        "npz": written(lambda f: np.savez(f, a=np.zeros(3))),
        "pth": written(lambda f: torch.save(torch.zeros(3), f))}
with tarfile.open(sys.argv[1], "w") as tar:
    for i, one in enumerate(pictures):
        for name, content in ({"img": one} | more).items():
            info = tarfile.TarInfo(f"{i}.{name}"); info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
"""


@pytest.mark.parametrize("decode", slow_but(["native"], ["native", "pillow"]))
def test_threads_import_nothing_that_a_fork_does_not_wait_for(tmp_path, decode):
    source = str(tmp_path / "all.tar")
    subprocess.run([sys.executable, "-c", WRITES, source], check=True, timeout=60)
    command = [sys.executable, "-c", AUDITED, decode, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


INTERRUPTED = """
import os, signal, threading, time
from fastload import imports
def hold():
    with imports.whole_imports(): time.sleep(3)
threading.Thread(target=hold, daemon=True).start(); time.sleep(0.2)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0); time.sleep(1)
except KeyboardInterrupt: print("interrupted", time.monotonic() - begun < 1.5)
"""


def test_ctrl_c_is_heard_while_a_fork_waits():
    command = [sys.executable, "-W", preloaded.FORK_MAY_HANG, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted True\n", "")


LOADED = """
import os, signal, sys
import importlib.machinery as machinery
real = machinery.ExtensionFileLoader.exec_module
create = machinery.ExtensionFileLoader.create_module
def signalled(self, spec):
    if spec.name == "fastload._native": os.kill(os.getpid(), signal.SIGINT)
    return create(self, spec)
machinery.ExtensionFileLoader.create_module = signalled
import fastload as fl
try: fl.Loader
except KeyboardInterrupt: print("interrupted")
print(fl.Loader.__name__)
"""


def test_ctrl_c_while_the_native_code_is_loaded_comes_after_it():
    """Before, it was an ImportError, and no later import succeeded."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "interrupted\nLoader\n"), done.stderr
