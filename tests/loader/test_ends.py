"""Ends that a program did not plan: forgotten iterations, hanging reads, Python's end; and shared iterators.

Most programs run in a process of their own: what is wrong shows there as a hang, an abort or a traceback.
"""

import itertools
import subprocess
import sys
import threading
import time

import pytest

import fastload as fl
from fastload.backends import has
from tests import faults, preloaded
from tests.loader.samples import labels, numbers, pictures, write_shards
from tests.quick import slow_but

HEAD = """
import gc, logging, os, signal, sys, threading, time
import fastload as fl
shards = sys.argv[1:]
fields = {"image": fl.Image(size=16), "label": fl.Int("cls"), "text": fl.Text("txt")}
def make(fields=fields, batch_size=2, **more):
    return fl.Loader(shards, batch_size, fields, **{"device": "cpu", "ledger": None, "threads": 2, **more})
"""
FORGET = """
gc.disable()
def forget(fn):
    it = iter(make(fields | {"own": fl.Custom("txt", fn)}, threads=1, prefetch=3)); next(it)
    cycle = [it]; cycle.append(cycle)
"""
needs_dali = pytest.mark.skipif(not has("nvidia.dali"), reason="nvidia-dali is not installed")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("ends"), 48, 12)


def ends(program: str, source) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; a program that hangs fails the test."""
    return preloaded.run(HEAD + program, *source)[:3]


def ends_from_a_cold_start(program: str, source) -> tuple[int, str, str]:
    """The same in a process that has imported nothing."""
    command = [sys.executable, "-c", HEAD + program, *source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


# ---- finalizers ----

WANTED_LOCKS = {
    "a lock of the user's": """
lock = threading.Lock()
def fn(content):
    time.sleep(0.2)
    with lock: return 1
forget(fn)
with lock: gc.collect()
""",
    "the lock of a logging handler": """
log = logging.getLogger("a"); handler = logging.StreamHandler(open(os.devnull, "w")); log.addHandler(handler)
log.setLevel("INFO")
class Collecting(logging.Formatter):
    def format(self, record):
        if threading.current_thread() is threading.main_thread(): gc.collect()
        return super().format(record)
def fn(content): time.sleep(0.2); log.info("parsed"); return 1
forget(fn); handler.setFormatter(Collecting()); log.info("step")
""",
    "an import": """
import tempfile
folder = tempfile.mkdtemp(); sys.path.insert(0, folder)
open(folder + "/slow_module.py", "w").write("import gc, time; time.sleep(0.3); gc.collect()")
begun = threading.Event()
def fn(content):
    time.sleep(0.1)
    if begun.is_set(): import slow_module
    return 1
forget(fn); begun.set(); import slow_module
""",
    "the lock under which threads start": """
real = threading.Thread.start
def start(self):
    with lock: gc.collect(); real(self)
lock = threading.Lock()
def fn(content):
    time.sleep(0.1)
    with lock: return 1
forget(fn); threading.Thread.start = start; threading.Thread(target=len, args=((),)).start()
""",
}


@pytest.mark.parametrize("lock", slow_but(["the lock of a logging handler", "an import"], WANTED_LOCKS))
def test_a_forgotten_iteration_is_collected_while_a_worker_wants_a_lock_that_is_held(source, lock):
    assert ends(FORGET + WANTED_LOCKS[lock] + 'print("went on")', source) == (0, "went on\n", "")


def test_a_worker_may_collect_a_forgotten_iteration_and_wait_for_a_thread_that_collects_too(source):
    program = """
from concurrent.futures import ThreadPoolExecutor
pool, begun = ThreadPoolExecutor(1), threading.Event()
def fn(content):
    time.sleep(0.05)
    return pool.submit(lambda: (gc.collect(), 1)[1]).result() if begun.is_set() else 1
forget(fn); begun.set(); time.sleep(0.5); print("went on")
"""
    assert ends(FORGET + program, source) == (0, "went on\n", "")


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 has no such lock")
@pytest.mark.parametrize("decode", ["native", "pillow", pytest.param("dali", marks=needs_dali)])
def test_a_forgotten_iteration_is_collected_by_a_thread_that_has_only_begun_to_start(source, decode):
    program = f"""
def use():
    own = {{"image": fl.Image(size=8), "own": fl.Custom("txt", len)}}
    for batch in make(own, decode="{decode}", augment=fl.Augment(mixup=0.5)): return
gc.disable(); use()
real = threading._maintain_shutdown_locks
def collecting(): real(); threading._maintain_shutdown_locks = real; gc.collect()
threading._maintain_shutdown_locks = collecting
use(); print("went on")
"""
    status, out, err = ends(program, source)
    assert (status, out) == (0, "went on\n"), err


@pytest.mark.parametrize("decode", ["native", pytest.param("dali", marks=needs_dali)])
def test_a_finalizer_takes_no_lock_of_ours(source, decode, monkeypatch):
    """Calls of C are watched while a forgotten iteration is collected."""
    import gc

    fields = {"image": fl.Image(size=8), "own": fl.Custom("txt", len)}
    run = iter(fl.Loader(source, 2, fields, decode=decode, augment=fl.Augment(mixup=0.3), epochs=None))
    next(run)
    taken = []

    def watch(frame, event, called):
        if event == "c_call" and getattr(called, "__name__", "") in ("acquire", "__enter__", "wait", "join"):
            taken.append((frame.f_code.co_filename, frame.f_lineno, called.__qualname__))

    cycle = [run]
    cycle.append(cycle)
    gc.collect()
    del run, cycle
    sys.setprofile(watch)
    try:
        gc.collect()
    finally:
        sys.setprofile(None)
    assert taken == []


# ---- the end of the program ----

KEPT = {
    "an iterator": "it = iter(make()); next(it)",
    "an iterator with worker threads": "it = iter(make(fields | {'own': fl.Custom('txt', len)})); next(it)",
    "a generator": "def run():\n    for batch in make(): yield batch\nit = run(); next(it)",
    "an iterator that was closed": "it = iter(make()); next(it); it.close()",
    "an exhausted iterator": "it = iter(make()); list(it)",
    "an iterator in a cycle": "it = iter(make()); next(it); it.me = it",
    "one that an exception holds": "it = iter(make()); next(it)\ntry: 1 / 0\nexcept Exception as e: kept = e",
    "an iterator of a DataLoader": "it = iter(fl.DataLoader(fl.Dataset(shards, fields), 2)); next(it)",
    "one that builtins holds": "import builtins; builtins.it = iter(make()); next(builtins.it)",
}


@pytest.mark.parametrize("kept", KEPT)
def test_a_script_that_keeps_an_iteration_ends_without_a_word(source, kept):
    assert ends(KEPT[kept], source) == (0, "", "")


COLD = itertools.product(KEPT, ["", "import torch\n", "import torch, dill\n"])
FEW = [("an iterator", "import torch\n"), ("an iterator of a DataLoader", "")]


@pytest.mark.parametrize(("kept", "imported"), slow_but(FEW, COLD))
def test_a_script_that_keeps_an_iteration_ends_without_a_word_whatever_it_imports_first(
    source, kept, imported
):
    if "dill" in imported and not has("dill"):
        pytest.skip("dill is not installed")
    assert ends_from_a_cold_start(imported + KEPT[kept], source) == (0, "", "")


LOOPS = {
    "images": "iter(make(epochs=None))",
    "labels": "iter(make({'label': fl.Int('cls')}, epochs=None))",
    "texts": "iter(make({'text': fl.Text('txt')}, epochs=None))",
    "functions": "iter(make({'own': fl.Custom('txt', len)}, epochs=None))",
    "mixup": "iter(make(epochs=None, augment=fl.Augment(mixup=0.5)))",
    "a mixture": "iter(fl.Loader(fl.Mixture({'a': (shards, 1.0), 'b': (shards, 1.0)}, epoch_samples=40), 2, "
    "fields, device='cpu', ledger=None, epochs=None))",
    "a DataLoader": "(b for _ in iter(int, 1) for b in fl.DataLoader(fl.Dataset(shards, fields), 2))",
    "a DataLoader of a torch dataset": "(b for _ in iter(int, 1) for b in fl.DataLoader(list(range(64)), 2))",
    "AdaPipe": "(pipe(images) for _ in iter(int, 1))",
    "DiffAugment": "(diff(images) for _ in iter(int, 1))",
    "AugmentPipe": "(edm(images) for _ in iter(int, 1))",
}
DAEMON = """
import torch
torch.set_num_threads(1)
images = torch.rand(4, 3, 16, 16) * 2 - 1
pipe = fl.augment.AdaPipe.named("bgc"); pipe.p.fill_(0.8)
diff = fl.augment.DiffAugment("color,translation,cutout")
edm = fl.augment.AugmentPipe(p=1, xflip=1, scale=1, rotate_frac=1)
it = {loop}
next(it)
threading.Thread(target=lambda: [None for _ in it], daemon=True).start()
time.sleep({seconds})
sys.exit(3)
"""


@pytest.mark.parametrize("loop", slow_but(["functions", "mixup", "a DataLoader", "AdaPipe"], LOOPS))
def test_a_daemon_thread_that_goes_on_does_not_change_the_exit_status(source, loop):
    assert ends(DAEMON.format(loop=LOOPS[loop], seconds=0.1), source) == (3, "", "")


def test_a_handler_at_exit_still_gets_batches_and_may_begin_an_iteration_where_python_starts_threads(source):
    program = """
import atexit
it = iter(make()); next(it)
def another():
    try: print(len(list(make())))
    except fl.ConfigError as error: print(error)
atexit.register(another)
atexit.register(lambda: print(len(next(it)["label"])))
"""
    first, second = ends(program, source)[1].splitlines()
    assert first == "2"
    # From Python 3.12 on no thread can begin then.
    assert second == "24" if sys.version_info < (3, 12) else second.startswith("Python is about to end")


def test_a_handler_that_comes_after_the_end_is_told_so(source):
    """Registered before fastload was imported, it runs when iterations have ended."""
    program = """
import atexit, subprocess
code = '''
import atexit, sys
def late():
    for use in (lambda: next(it), lambda: next(iter(fl.Loader(sys.argv[1:], 2, {"label": fl.Int("cls")})))):
        try: use()
        except fl.ConfigError as error: print(error)
atexit.register(late)
import fastload as fl
it = iter(fl.Loader(sys.argv[1:], 2, {"label": fl.Int("cls")})); next(it)
'''
print(subprocess.run([sys.executable, "-c", code, *shards], capture_output=True, text=True).stdout)
"""
    _, out, err = ends(program, source)
    assert out.count("Python is about to end") == 2, (out, err)


# ---- what hangs ----

HANGS = """
from tests.faults import Rule, set_rules
loader = fl.Loader(shards, 2, fields, device="cpu", ledger=None, shuffle=False, prefetch=8, {more})
len(loader)
set_rules(Rule("{call}", "001.tar", delay_seconds=3600))
def loop():
    for batch in loader: pass
begun = time.monotonic()
{body}
print("in time", time.monotonic() - begun < 8, flush=True)
"""
INTERRUPT = "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
WAYS = {  # arguments of the loader, and what the program does
    "a timeout": ("timeout_seconds=0.5", "try: loop()\nexcept fl.BatchTimeoutError: print('caught')"),
    "Ctrl-C": ("", INTERRUPT + "try: loop()\nexcept KeyboardInterrupt: print('caught')"),
    "a break": ("", "for batch in loader: break"),
    "closing": ("", "it = iter(loader); next(it); loader.close()"),
    "nothing": ("", "it = iter(loader); next(it)"),
    "a daemon thread": ("", "threading.Thread(target=loop, daemon=True).start(); time.sleep(0.5)"),
}


FAST_WAYS = [("a timeout", "read"), ("Ctrl-C", "open"), ("nothing", "read"), ("a daemon thread", "open")]


@pytest.mark.parametrize(("way", "call"), slow_but(FAST_WAYS, itertools.product(WAYS, ["read", "open"])))
def test_a_read_that_hangs_for_ever_does_not_keep_the_process(source, tmp_path, call, way):
    faults.needs_faults()
    more, body = WAYS[way]
    program = HEAD + HANGS.format(more=more, body=body, call=call)
    outcome = faults.run(program, tmp_path, *source, limit_seconds=30)
    caught = "caught\n" if "caught" in body else ""
    assert (outcome.status, outcome.out, outcome.err) == (0, f"{caught}in time True\n", "")


def test_loaders_of_other_files_go_on_though_all_reads_of_one_hang(source, tmp_path):
    faults.needs_faults()
    program = """
from tests.faults import Rule, set_rules
hanging = fl.Loader(shards[1:2], 1, fields, device="cpu", ledger=None, prefetch=12, timeout_seconds=0.5)
well = fl.Loader(shards[:1], 1, fields, device="cpu", ledger=None)
len(hanging), len(well)
set_rules(Rule("open", "001.tar", delay_seconds=3600))
for _ in range(3):  # more reads hang each time than there are threads
    try: list(hanging)
    except fl.BatchTimeoutError: pass
print(len(list(well)))
"""
    outcome = faults.run(HEAD + program, tmp_path, *source, limit_seconds=30)
    assert (outcome.status, outcome.out) == (0, "12\n"), outcome.err


def test_a_second_interrupt_ends_what_the_first_one_began(source):
    """Ctrl-C while closing waits for a function that hangs."""
    program = """
def fn(content):
    if content == b"caption 7": time.sleep(3600)
    return 1
loader = make({"own": fl.Custom("txt", fn)}, threads=1, shuffle=False)
it = iter(loader); next(it); time.sleep(0.3)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try: loader.close()
except KeyboardInterrupt: print("interrupted", time.monotonic() - begun < 2)
"""
    assert ends(program, source) == (0, "interrupted True\n", "")


# ---- several threads ----


def consume(iterator, got, errors):
    try:
        for batch in iterator:
            got.append(tuple(batch["label"].tolist()))
    except Exception as error:
        errors.append(error)


@pytest.mark.parametrize("make", [labels, pictures])
def test_threads_that_share_an_iterator_get_each_batch_once(source, make):
    expected = sorted(map(tuple, numbers(make(source, 2))))
    for _ in range(10):
        iterator, got, errors = iter(make(source, 2)), [], []
        threads = [threading.Thread(target=consume, args=(iterator, got, errors)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert errors == [] and sorted(got) == expected


def test_the_state_beside_threads_that_share_an_iterator_is_that_of_what_was_delivered(source):
    loader = labels(source, 2)
    iterator, got = iter(loader), []
    threads = [threading.Thread(target=lambda: got.append(next(iterator))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    rest = labels(source, 2)
    rest.load_state_dict(loader.state_dict())
    both = sorted(numbers(got)) + numbers(rest)
    assert sorted(both) == sorted(numbers(labels(source, 2)))


def test_a_map_batch_that_asks_for_the_next_batch_is_told_so(source):
    loader = labels(source, 2, map_batch=lambda batch: next(run))
    run = iter(loader)
    with pytest.raises(fl.ConfigError, match="map_batch called next"):
        next(run)


def test_threads_that_share_an_iterator_of_a_torch_dataset_get_each_batch_once():
    class Slow:
        def __len__(self):
            return 40

        def __getitem__(self, i):
            time.sleep(0.001)
            return i

    iterator, got, lock = iter(fl.DataLoader(Slow(), 2)), [], threading.Lock()

    def work():
        for batch in iterator:
            with lock:
                got.extend(batch.tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(40))


OPENS = """
from tests.faults import Rule, set_rules
if {warm}: len(make())
set_rules(Rule("{call}", "{path}", delay_seconds=3600))
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try: {body}
except KeyboardInterrupt: print("in time", time.monotonic() - begun < 4, flush=True)
"""
OPENED = {
    "len": "len(make())",
    "the first batch": "next(iter(make()))",
    "a DataLoader": "len(fl.DataLoader(fl.Dataset(shards, fields), 2))",
    "index": "__import__('fastload.prepare.index').prepare.index.index(shards)",
    "check": "__import__('fastload.prepare.check').prepare.check.check(shards)",
}
HANGING = {  # whether there is an index already, and what hangs
    "a shard": (False, "open", "001.tar"),
    "an indexed shard": (True, "open", "001.tar"),
    "an index": (True, "open", ".flidx"),
}


OPENINGS = [("a shard", body) for body in OPENED] + [(hanging, "the first batch") for hanging in HANGING]
FEW_OPENINGS = [("a shard", "len"), ("a shard", "index"), ("an indexed shard", "the first batch")]


@pytest.mark.parametrize(("hanging", "body"), slow_but(FEW_OPENINGS, dict.fromkeys(OPENINGS)))
def test_ctrl_c_is_heard_while_a_source_is_opened_that_hangs(source, tmp_path, hanging, body):
    faults.needs_faults()
    warm, call, path = HANGING[hanging]
    program = HEAD + OPENS.format(warm=warm, call=call, path=path, body=OPENED[body])
    outcome = faults.run(program, tmp_path, *source, limit_seconds=30)
    # An indexed shard that nobody reads yet need not be opened: then its first read hangs.
    assert (outcome.status, outcome.out) == (0, "in time True\n"), outcome
    assert outcome.seconds < 15


def test_a_ledger_that_hangs_keeps_no_training(source, tmp_path):
    faults.needs_faults()
    program = """
import warnings
from fastload.read import ledger
from tests.faults import Rule, set_rules
ledger.WRITE_SECONDS = 0.3
def fn(content): raise ValueError("bad") if content == b"caption 3" else None
loader = make({"own": fl.Custom("txt", lambda content: 1 if content != b"caption 3" else fn(content))},
              ledger="hangs.jsonl", max_bad_fraction=1.0)
len(loader)
set_rules(Rule("open", "hangs.jsonl", delay_seconds=3600))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    print(len(list(loader)), loader.stats()["bad_samples"])
print([str(one.message) for one in seen if "took more than 0.3 s" in str(one.message)] != [])
"""
    outcome = faults.run(HEAD + program, tmp_path, *source, limit_seconds=30)
    assert (outcome.status, outcome.out) == (0, "24 1\nTrue\n"), outcome


def test_a_state_that_is_taken_beside_a_thread_that_iterates_is_of_one_place(source):
    """Epoch and position are those of the same batch."""
    loader, states, stop = labels(source, 24, epochs=None), [], threading.Event()

    def look():
        while not stop.is_set():
            states.append(loader.state_dict())

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        looking = threading.Thread(target=look)
        looking.start()
        iterator = iter(loader)
        for _ in range(1500):
            next(iterator)
        stop.set()
        looking.join()
    finally:
        sys.setswitchinterval(before)
    assert len(states) > 1000
    assert [
        one for one in states if not one["epoch"] * 48 <= one["position"] <= (one["epoch"] + 1) * 48
    ] == []


def test_a_signal_s_handler_may_close_the_loader_while_its_thread_counts(source):
    """The handler runs on the thread that it interrupts, which may hold the lock of the statistics."""
    loader, closed = pictures(source, 2, epochs=None), threading.Event()

    def interrupted():
        next(iter(loader))
        with loader._stats._lock:
            loader.close()
        closed.set()

    threading.Thread(target=interrupted, daemon=True).start()
    assert closed.wait(20)
