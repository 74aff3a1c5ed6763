"""The checks of scripts/test-mpi.sh: runs the given `rezero`, which is built with MPI, and prints a line for each thing
shown. Numbers are of f32 on Flex."""

import array
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

REZERO = str(pathlib.Path(sys.argv[1]).resolve())
KILLS = int(os.environ.get("MPI_KILLS", "4"))
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe"]
# Each process has a thread: there may be more of them than processors.
ENV = os.environ | {"RAYON_NUM_THREADS": "1"}
CLOCK = {"seconds", "items_per_s", "warm_up_s", "ranks"}
work = pathlib.Path(tempfile.mkdtemp())
os.chdir(work)

MLP = "cifar10-mlp64 data.set=shapes depth=4 width=32 batch=33 data.train_items=300 data.valid_items=100 log_every=1".split()
LM = (
    "enwik8-tiny data.set=wiki-like depth=2 d_model=32 d_ff=64 context=32 batch=7 data.valid_items=2000 eval_every=10 "
    "log_every=1"
).split()
RESNET = "quickstart depth=8 data.train_items=320 data.valid_items=64 batch=32 log_every=1".split()


def train(run, words, ranks=1, check=True):
    """A run of that many ranks. Returns what it has printed."""
    begin = [*MPIRUN, "-n", str(ranks)] if ranks > 1 else []
    command = [*begin, REZERO, "train", *words, "--plain"]
    if "--resume" not in words:
        command += ["--run-dir", run]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    return done


def rows(run):
    lines = pathlib.Path(run, "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def trained(run):
    return [row for row in rows(run) if row["split"] == "train"]


def weights(run):
    """The tensors of the run's last checkpoint by name; of the average of weights, if the run keeps one."""
    out = f"{run}.safetensors"
    subprocess.run([REZERO, "export", run, "--checkpoint", "last", "--out", out], check=True, capture_output=True)
    data = pathlib.Path(out).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, data = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    values = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] == "F32":
            values[name] = array.array("f", data[begin:end])
    return values


def distance(a, b):
    """The largest difference of a tensor, over that tensor's largest value."""
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    worst = 0.0
    for name in a:
        most = max(map(abs, b[name]), default=0.0) or 1.0
        worst = max(worst, max((abs(x - y) for x, y in zip(a[name], b[name])), default=0.0) / most)
    return worst


def must_equal(a, b):
    assert rows(a) == rows(b), f"the rows of {a} and {b} differ"
    assert weights(a) == weights(b), f"the weights of {a} and {b} differ"


def running(word):
    """The processes of rezero that have a word in their command line: the directory of each and its variables."""
    for proc in pathlib.Path("/proc").iterdir():
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
            if words[0].decode() == REZERO and any(word.encode() in each for each in words):
                yield proc, (proc / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue


def processes(run):
    """The ranks of a run that is under way: their process ids."""
    found = {}
    for proc, variables in running(run):
        rank = [v for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
        if rank and run.encode() in (proc / "cmdline").read_bytes().split(b"\0"):
            found[int(rank[0].split(b"=")[1])] = int(proc.name)
    return found


def newest(run):
    steps = pathlib.Path(run, "checkpoints").glob("step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in steps), default=-1)


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


JOBS = []


def begun(run, words, ranks, options=()):
    """A run in the background."""
    place = [] if "--resume" in words else ["--run-dir", run]
    command = [*MPIRUN, *options, "-n", str(ranks), REZERO, "train", *words, "--plain", *place]
    return started(command)


def started(command):
    # A shell's background job, which this script may be, ignores Ctrl-C, and so would its children.
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    job = subprocess.Popen(
        command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    )
    JOBS.append(job)
    return job


def ran(command, cwd=None, timeout=120):
    return subprocess.run(command, env=ENV, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def equal_to_accumulate():
    # The last batch of an epoch has three rows: fewer than four ranks.
    images = [*MLP, "steps=12", "clip_norm=0.5", "data.augment=crop:padding=4,flip,mixup", "ema=0.9"]
    text = [*LM, "steps=12", "dropout=0.1", "clip_norm=0.5"]
    for name, words in (("images", images), ("text", text)):
        for n in (2, 3, 4):
            train(f"{name}-{n}", words, n)
            train(f"{name}-{n}-alone", [*words, f"accumulate={n}"])
            must_equal(f"{name}-{n}", f"{name}-{n}-alone")
        print(f"{name}: 12 steps on 2, 3 and 4 ranks equal one process with accumulate = 2, 3 and 4, bit for bit")
    train("parts", [*LM, "steps=12", "accumulate=2", "batch=8"], 2)
    train("parts-alone", [*LM, "steps=12", "accumulate=2", "batch=8", "device=flex,flex"])
    # The batches of a validation are of other sizes.
    assert trained("parts") == trained("parts-alone") and weights("parts") == weights("parts-alone")
    train("devices", [*LM, "steps=12", "batch=8", "device=flex,flex"], 2)
    assert distance("devices", "parts") < 1e-5
    print("accumulate = 2 on 2 ranks: equal to two devices with accumulate = 2; two devices on each of 2 ranks: within 1e-5")
    train("again", [*LM, "steps=6", "dropout=0.1", "recompute=true"], 2)
    train("again-alone", [*LM, "steps=6", "dropout=0.1", "recompute=true", "accumulate=2"])
    must_equal("again", "again-alone")
    print("recompute: 2 ranks equal accumulate = 2, bit for bit")
    train("norm", RESNET, 2)
    train("norm-alone", [*RESNET, "accumulate=2"])
    assert trained("norm") == trained("norm-alone"), "the rows differ"
    print("batch norm per rank: rows of training equal those of accumulate = 2, bit for bit")


def equal_to_the_whole_batch():
    def compare(name, words):
        words = [*words, "steps=50", "clip_norm=1"]
        train(f"{name}-whole", words)
        far, off = 0.0, 0.0
        for n in (2, 3, 4):
            train(f"{name}-50-{n}", words, n)
            far = max(far, distance(f"{name}-50-{n}", f"{name}-whole"))
            pairs = zip(trained(f"{name}-50-{n}"), trained(f"{name}-whole"), strict=True)
            off = max(off, max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in pairs))
        return far, off

    for name, words in (("images", MLP), ("text", [*LM, "optimizer=sgd", "lr=0.1"])):
        far, off = compare(name, words)
        assert far <= 1e-5 and off <= 1e-5, (far, off)
        print(f"{name}, SGD: 50 steps on 2, 3 and 4 ranks beside the whole batch: weights within {far:.1e}, losses {off:.1e}")
    # What is dropped is a function of the row in the batch.
    far, off = compare("dropout", [*LM, "optimizer=sgd", "lr=0.1", "dropout=0.2"])
    assert far <= 1e-5 and off <= 1e-5, (far, off)
    print(f"text with dropout, SGD: weights within {far:.1e}, losses {off:.1e}")
    # Adam divides a gradient by its size, also one that is nothing but rounding.
    far, off = compare("adam", LM)
    assert off <= 1e-5, off
    print(f"text, Adam: losses within {off:.1e}, weights {far:.1e}")


def synchronised_batch_norm():
    # The last batch of an epoch has three rows, and 4 ranks.
    words = [*RESNET, "batch=33", "data.train_items=300", "steps=20", "clip_norm=1", "sync_batch_norm=true", "lr=0.01"]
    words += ["schedule=constant", "augment=none"]
    train("synchronised", words)
    far, off = 0.0, 0.0
    for n in (2, 3, 4):
        train(f"synchronised-{n}", words, n)
        far = max(far, distance(f"synchronised-{n}", "synchronised"))
        first = zip(trained(f"synchronised-{n}")[:1], trained("synchronised"), strict=False)
        off = max(off, max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in first))
    assert off <= 1e-6 and far <= 1e-5, (far, off)
    print(f"sync_batch_norm: 2, 3 and 4 ranks beside the whole batch: first loss within {off:.1e}, weights after 20 steps {far:.1e}")
    for more, says in (
        (["accumulate=2"], "is not combined with accumulate"),
        (["device=flex,flex", "batch=32"], "one device each"),
    ):
        done = train("refused", [*words, *more], 2, check=False)
        assert done.returncode == 1 and says in done.stderr, done.stderr
        assert not pathlib.Path("refused").exists()
    done = train("refused", [*MLP, "steps=2", "data.sync_batch_norm=true"], 2, check=False)
    assert done.returncode == 1 and "has no batch norm" in done.stderr, done.stderr
    print("sync_batch_norm with parts, several devices or without batch norm: refused")


def narrow_sums():
    words = [*LM, "steps=40", "checkpoint_every=10"]
    for name, more in (("wide", []), ("narrow", ["train.reduce=bf16"])):
        train(name, [*words, *more], 3)
    sent = [json.loads(line).get("ranks") for run in ("wide", "narrow") for line in open(f"{run}/metrics.jsonl")]
    sent = [ranks["bytes"] for ranks in sent if ranks]
    wide, narrow = sum(sent[: len(sent) // 2]), sum(sent[len(sent) // 2 :])
    assert abs(narrow - wide / 2) <= 8 * len(sent), (wide, narrow)
    a, b = trained("wide"), trained("narrow")
    first, last = (abs(a[i]["loss"] - b[i]["loss"]) / a[i]["loss"] for i in (0, -1))
    # The first loss is that of the initial weights; the first update is of rounded gradients.
    assert first < 1e-6 and last < 1e-2, (first, last)
    print(f"train.reduce = bf16: half the bytes, the ranks' weights alike at each checkpoint, the loss after 40 steps within {last:.1e}")


def another_number_of_ranks():
    words = [*MLP, "clip_norm=1", "checkpoint_every=1"]
    train("moved", [*words, "steps=7"], 4)
    for steps, n in ((13, 1), (18, 3), (26, 2)):
        train("moved", ["moved", "--resume", f"steps={steps}"], n)
    train("stayed", [*words, "steps=26"])
    files = sorted(path.name for path in pathlib.Path("moved/checkpoints/step-26").iterdir())
    assert files == sorted(path.name for path in pathlib.Path("stayed/checkpoints/step-26").iterdir())
    worst = distance("moved", "stayed")
    assert worst <= 1e-5, worst
    print(f"begun on 4, resumed on 1, 3 and 2 ranks in the middle of epochs: within {worst:.1e} of one process")


def kills():
    """A random rank is killed at a random moment, again and again, and the run is resumed."""
    random.seed(0)
    words = [*LM, f"steps={max(300, 40 * KILLS)}", "dropout=0.1", "checkpoint_every=5"]
    train("undisturbed", words, 2)
    killed, said = 0, ""
    while not pathlib.Path("killed/DONE").exists():
        is_run = pathlib.Path("killed/recipe.toml").exists()
        before = newest("killed") if is_run else -1
        job = begun("killed", ["killed", "--resume"] if is_run else words, 2)
        if killed < KILLS:
            goal = before + 1 + random.randrange(12)
            until("a checkpoint", lambda: newest("killed") >= goal or job.poll() is not None)
            time.sleep(random.random() * 0.05)
            ranks = processes("killed")
            if len(ranks) == 2:
                os.kill(ranks[random.randrange(2)], signal.SIGKILL)
                killed += 1
        said = job.communicate(timeout=120)[1]
        assert newest("killed") >= before, "a checkpoint was lost"
        assert job.returncode == 0 or "signal 9" in said, said
    must_equal("killed", "undisturbed")
    assert killed == KILLS, f"{killed} kills"
    print(f"{killed} SIGKILLs of a random rank of 2, each resumed: rows and weights equal an undisturbed run's, bit for bit")
    words = [*RESNET, "checkpoint_every=1", "data.train_items=1600"]
    job = begun("killed-1", words, 2)
    until("a checkpoint", lambda: newest("killed-1") >= 3)
    os.kill(processes("killed-1")[1], signal.SIGKILL)
    job.communicate(timeout=60)
    train("killed-1", ["killed-1", "--resume"], 1)
    print("quickstart: one of 2 ranks killed, resumed by one process to the end")


def stops():
    words = [*LM, "steps=100000"]
    job = begun("stopped", words, 3)
    until("a validation", lambda: newest("stopped") >= 10)
    # mpirun hands it on to all ranks.
    job.send_signal(signal.SIGUSR1)
    said = job.communicate(timeout=60)[1]
    assert "saved; continue with" in said, said
    step = newest("stopped")
    train("stopped", ["stopped", "--resume", f"steps={step + 15}"], 3)
    train("unstopped", [*LM, f"steps={step + 15}"], 3)
    assert weights("stopped") == weights("unstopped")
    print(f"SIGUSR1 to mpirun: stopped together at step {step} with a checkpoint; resumed, equal bit for bit")

    job = begun("ctrl-c", words, 2, ["--mca", "odls_base_sigkill_timeout", "8"])
    until("a validation", lambda: newest("ctrl-c") >= 10)
    job.send_signal(signal.SIGINT)
    said = job.communicate(timeout=60)[1]
    assert "saved; continue with" in said, said
    print("Ctrl-C at mpirun, which waits before it kills: stopped together, with a checkpoint")

    job = begun("hanging", [*words, "--rank-timeout", "3"], 3)
    until("a validation", lambda: newest("hanging") >= 10)
    os.kill(processes("hanging")[1], signal.SIGSTOP)
    hung = time.monotonic()
    said = job.communicate(timeout=60)[1]
    assert "no answer for 3 s from rank 1 on " in said, said
    assert job.returncode != 0
    took = time.monotonic() - hung
    assert took < 20, took
    train("hanging", ["hanging", "--resume", f"steps={newest('hanging') + 2}"], 1)
    print(f"a rank that hangs (SIGSTOP) ends all after {took:.0f} s, with its number and host; the run is resumed")

    done = train("diverged", [*LM, "steps=50", "lr=1e30"], 2, check=False)
    assert done.returncode == 3 and done.stderr.count("diverged at step") == 1, done.stderr
    early = train("early", [*LM, "steps=400", "lr=0", "patience=2"], 2)
    assert early.stderr.count("stopped early") == 1, early.stderr
    print("a divergence ends all with status 3 and is said once; a run stops early on all")


def wrong_starts():
    def fails(words, says, where="wrong"):
        done = subprocess.run([*MPIRUN, *words], env=ENV, capture_output=True, text=True, timeout=120)
        assert done.returncode != 0 and says in done.stderr, f"{says!r} is not in: {done.stderr}"
        assert not pathlib.Path(where).exists(), "the run directory was touched"
        assert done.stderr.count("error: ") == 1, done.stderr

    def rank(words, n=1):
        return ["-n", str(n), REZERO, "train", *words, "--run-dir", "wrong"]

    lm = [*LM, "steps=4"]
    fails([*rank(lm), ":", *rank([*lm, "seed=2"])], "rank 1 on ")
    first, second = work / "one.txt", work / "two.txt"
    first.write_bytes(b"all of one text. " * 400)
    second.write_bytes(b"all of one text, " * 400)
    of = [word for word in lm if not word.startswith("data.set=")]
    fails([*rank([*of, "--text", str(first)]), ":", *rank([*of, "--text", str(second)])], "has another data than rank 0")
    fails(rank([*lm, "batch=2"], 3), "train.batch")
    fails([*rank(lm), ":", *rank([*lm, "--device", "cuda"])], "rank 1 on ")
    fails(rank(["cifar10-mlp64", "data.set=shapes", "recompute=true"], 2), "in one process")
    recipe = work / "mine.toml"
    recipe.write_text('[model]\nfamily = "byte-lm"\n[data]\nset = "wiki-like"\n[run]\nsteps = 2\n[train]\nbatch = 4\n')
    other = work / "other"
    other.mkdir()
    (other / "mine.toml").write_text(recipe.read_text().replace("batch = 4", "batch = 6"))
    mine = ["-n", "1", REZERO, "train", "mine.toml", "--run-dir", "wrong"]
    fails([*mine, ":", "--wdir", str(other), *mine], "another recipe")
    print("other command lines, data, recipes, a batch that is too small, a device that is absent: one error, with the rank")

    # Rank 1 works elsewhere and sees no run directory.
    words = [REZERO, "train", *LM, "steps=4", "--run-dir", "apart"]
    subprocess.run([*MPIRUN, "-n", "1", *words, ":", "--wdir", str(other), "-n", "1", *words], env=ENV, check=True, capture_output=True)
    words = [REZERO, "train", "apart", "--resume", "steps=8"]
    subprocess.run([*MPIRUN, "-n", "1", *words, ":", "--wdir", str(other), "-n", "1", *words], env=ENV, check=True, capture_output=True)
    assert newest("apart") == 8 and not (other / "apart").exists()
    print("a run directory that only rank 0 sees: begun and resumed")

    # MPI itself has files of some megabytes.
    large = [*LM, "d_model=256", "d_ff=2048", "depth=6", "batch=2", "steps=2", "--run-dir", "full"]
    limited = f"ulimit -f 10000; exec {REZERO} train {' '.join(large)}"
    done = subprocess.run(
        [*MPIRUN, "-n", "1", "bash", "-c", limited, ":", "-n", "1", REZERO, "train", *large],
        env=ENV, capture_output=True, text=True, timeout=120,
    )
    assert done.returncode != 0 and "error: cannot write" in done.stderr, done.stderr
    print("rank 0 cannot write: one error, and all end")

    alone = [*MPIRUN, "-n", "2", "bash", "-c", f"{REZERO} train {' '.join(LM)} steps=2 --alone --run-dir alone-$OMPI_COMM_WORLD_RANK"]
    subprocess.run(alone, env=ENV, check=True, capture_output=True)
    must_equal("alone-0", "alone-1")
    print("--alone: a run for each process")


def evaluations():
    def scored(run, n, *words, ranks=()):
        command = [REZERO, "eval", run, "--json", *words]
        ranks = ranks or ["-n", str(n), *command]
        finished = ran([*MPIRUN, *ranks] if n > 1 else command, cwd=repository if run.startswith("zoo:") else None)
        assert finished.returncode == 0 and finished.stdout.count("\n") == 1, finished.stderr
        result = json.loads(finished.stdout)
        result.pop("seconds")
        return result

    repository = pathlib.Path(__file__).resolve().parent.parent
    train("images", [*MLP, "steps=8", "ema=0.9"])
    train("text", [*LM, "steps=8"])
    text = work / "a.txt"
    text.write_bytes(b"all of one text. " * 3000)
    for words in (["images"], ["images", "--raw", "--split", "test", "--batch", "30"], ["text", "--checkpoint", "last"],
                  ["zoo:bytes12-enwik8", "--text", str(text), "--split", "test"]):
        one = scored(words[0], 1, *words[1:])
        for n in (2, 3):
            assert scored(words[0], n, *words[1:]) == one, words
    # Rank 1 sees no run.
    other = work / "blind"
    other.mkdir()
    command = [REZERO, "eval", "text", "--json"]
    seen = scored("text", 2, ranks=["-n", "1", *command, ":", "--wdir", str(other), "-n", "1", *command])
    assert seen == scored("text", 1)
    print("eval: 2 and 3 ranks equal one process, bit for bit: images, an average, text, a named model, a run that rank 0 alone sees")
    command = command[:3]
    for more, says in ((["--device", "cuda"], "rank 1 on "), (["--split", "test"], "another command line"), (["--text", "none"], "rank 1 on ")):
        wrong = ran([*MPIRUN, "-n", "1", *command, ":", "-n", "1", *command, *more])
        assert wrong.returncode != 0 and says in wrong.stderr and wrong.stderr.count("error: ") == 1, wrong.stderr
    alone = ran([*MPIRUN, "-n", "2", *command, "--alone"])
    assert alone.returncode == 0 and alone.stdout.count("bits per byte") == 2, alone.stderr
    print("eval: an error of a rank ends all and is said once; --alone scores in each")


def sweeps():
    words = [*LM, "steps=30", "seed=1..3", "lr=1e-3,1e30"]
    assert ran([REZERO, "sweep", *words, "--dir", "alone", "-j", "2"]).returncode == 0
    other = work / "beside"
    other.mkdir()
    command = [REZERO, "sweep", *words, "--dir", str(work / "ranks"), "--json"]
    many = ran([*MPIRUN, "-n", "1", *command, ":", "--wdir", str(other), "-n", "1", *command])
    assert many.returncode == 0 and "3 diverged, 3 done" in many.stderr, many.stderr
    assert many.stdout.count("\n") == 6 and many.stderr.count("trials have ended") == 1, many.stderr
    trials = sorted(path.parent.name for path in pathlib.Path("alone").glob("*/metrics.jsonl"))
    assert len(trials) == 6 and not list(other.iterdir())
    for trial in trials:
        assert repr(rows(f"alone/{trial}")) == repr(rows(f"ranks/{trial}")), trial
    more = ran([*MPIRUN, "-n", "3", REZERO, "sweep", *[w.replace("1..3", "1..4") for w in words], "--dir", "ranks"])
    assert more.returncode == 0 and "all 8 trials have ended" in more.stderr, more.stderr
    print("sweep: 6 trials on 2 ranks equal those of one process; extended on 3")

    long = [REZERO, "sweep", *LM, "steps=100000", "seed=1..3", "--dir", "long"]
    def trains():
        return [proc for proc, _ in running("--of-sweep")]
    job = started([*MPIRUN, "-n", "2", *long])
    until("two trials", lambda: len(list(pathlib.Path("long").glob("*/checkpoints/step-*/manifest.json"))) >= 2)
    for _, variables in running("--of-sweep"):
        assert not [v for v in variables if v.startswith((b"OMPI_", b"PMIX_", b"PMI_"))], variables
    job.send_signal(signal.SIGUSR1)
    said = job.communicate(timeout=60)[1]
    assert "0 of 3 trials have ended" in said and said.count("continue with") == 1 and "error: " not in said, said
    assert job.returncode == 138, job.returncode
    assert not trains()
    job = started([*MPIRUN, "-n", "2", *long])
    until("two trials", lambda: len(trains()) == 2)
    os.kill(processes("long")[1], signal.SIGKILL)
    job.communicate(timeout=60)
    until("no trial is left", lambda: not trains(), 10)
    job = started([*MPIRUN, "-n", "2", *long, "--rank-timeout", "2"])
    until("two trials", lambda: len(trains()) == 2)
    os.kill(processes("long")[1], signal.SIGSTOP)
    said = job.communicate(timeout=60)[1]
    assert "no answer for 2 s from rank 1 on " in said, said
    until("no trial is left", lambda: not trains(), 10)
    print("sweep: SIGUSR1 stops all trials with a checkpoint; a rank that is killed or hangs ends all, and no trial stays behind")

    # A host that has another disk at that place.
    (work / "disk").mkdir()
    command = [REZERO, "sweep", *LM, "steps=2", "seed=1..2", "--dir", "disk/s"]
    apart = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs none disk && exec "$0" "$@"', *command]
    if ran(["unshare", "-m", "true"]).returncode == 0:
        wrong = ran([*MPIRUN, "-n", "1", *command, ":", "-n", "1", *apart])
        assert wrong.returncode != 0 and "on a disk that all hosts share" in wrong.stderr, wrong.stderr
        assert "rank 1 on " in wrong.stderr and wrong.stderr.count("error: ") == 1, wrong.stderr
        print("sweep: a directory that another rank does not see is refused")


def restarts():
    words = [*LM, "dropout=0.1", "checkpoint_every=5"]
    # The first kill of the ranks comes before there is a checkpoint.
    for n, goals in ((1, [20]), (2, [-1, 20])):
        run, launcher = f"again-{n}", ["--launcher", " ".join([*MPIRUN, "-n", str(n)])] if n > 1 else []
        job = started([REZERO, "train", *words, "steps=150", "--run-dir", run, "--restarts", "4", *launcher])
        for goal in goals:
            until("its beginning", lambda: newest(run) >= goal and pathlib.Path(run, "recipe.toml").exists())
            found = [int(proc.name) for proc, _ in running(run) if b"--supervised" in (proc / "cmdline").read_bytes()]
            os.kill(found[-1], signal.SIGKILL)
            until("its end", lambda: not os.path.exists(f"/proc/{found[-1]}/exe"))
        said = job.communicate(timeout=120)[1]
        assert job.returncode == 0 and f": restart {len(goals)} of 4 in {len(goals)} s" in said and "137" in said, said
        train(f"{run}-undisturbed", [*words, "steps=150"], n)
        must_equal(run, f"{run}-undisturbed")
    print("--restarts: one process killed once, and 2 ranks by --launcher twice: equal to an undisturbed run, bit for bit")

    def ends(words, code, says, restarts="3"):
        job = ran([REZERO, "train", *words, "--restarts", restarts])
        assert job.returncode == code and says in job.stderr, (job.returncode, job.stderr)
        return job.stderr

    ranks = ["--launcher", " ".join([*MPIRUN, "-n", "2"])]
    said = ends([*LM, "steps=3", "--run-dir", "vain", "--launcher", "false"], 1, "came to no further checkpoint")
    assert said.count(": restart ") == 2, said
    ends([*LM, "steps=3", "--run-dir", "vain", "--launcher", "false"], 1, "after 1 restart;", "1")
    for more, code, says in (
        (["lr=1e30"], 3, "diverged at step"), (["lr=x"], 1, "lr"), (["--device", "cuda"], 1, "cuda"),
        (["--text", "absent"], 1, "absent"),
    ):
        of = [word for word in LM if not word.startswith("data.set=") or more[0] != "--text"]
        for launcher in ([], ranks):
            said = ends([*of, "steps=5", "--run-dir", "wrong", *more, *launcher], code, says)
            assert "restart" not in said and said.count("error: ") == 1, said
            shutil.rmtree("wrong", ignore_errors=True)
    assert "restart" not in ran([*MPIRUN, "-n", "2", REZERO, "train", *LM, "--restarts", "2"]).stdout
    print("--restarts: not after a divergence, a wrong recipe, device or file; not a third time without a step")
    for name, number, code, launcher in (("int", signal.SIGINT, 130, ranks), ("term", signal.SIGTERM, 143, ranks), ("usr1", signal.SIGUSR1, 138, [])):
        run = f"stop-{name}"
        job = started([REZERO, "train", *LM, "steps=100000", "--run-dir", run, "--restarts", "3", *launcher])
        until("a checkpoint", lambda: newest(run) >= 10)
        job.send_signal(number)
        said = job.communicate(timeout=60)[1]
        assert job.returncode == code and "saved; continue with" in said and "restart" not in said, (job.returncode, said)
        assert not list(running(run))
    print("--restarts: Ctrl-C, SIGTERM and SIGUSR1 are handed on, and the run stops with a checkpoint")
    for after in (0.02, 0.05, 0.2):
        run = f"early-{after}"
        job = started([REZERO, "train", *LM, "steps=100000", "--run-dir", run, "--restarts", "3", *ranks])
        time.sleep(after)
        job.send_signal(signal.SIGTERM)
        said = job.communicate(timeout=60)[1]
        assert job.returncode in (143, -signal.SIGTERM), (job.returncode, said)
        until("the end of its ranks", lambda: not list(running(run)))
    for words in (["--plain", "--restarts", "1", *LM, "steps=2", "--run-dir", "plain"], ["--restarts", "1", "--run-dir", "dashes", "--", *LM, "steps=2"]):
        assert ran([REZERO, "train", *words]).returncode == 0
    print("--restarts: a SIGTERM while mpirun starts; --plain and -- among the words")


def limits():
    """Waits in MPI itself, in the opening of data, and of a machine that was stopped."""
    source = work / "slow.c"
    source.write_text(
        """#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void hang(const char *where) { if (getenv(where)) for (;;) pause(); }
int MPI_Finalize(void) { hang("AT_END"); return ((int (*)(void))dlsym(RTLD_NEXT, "MPI_Finalize"))(); }
int MPI_Init_thread(int *n, char ***words, int wanted, int *got) {
    hang("AT_BEGIN");
    return ((int (*)(int *, char ***, int, int *))dlsym(RTLD_NEXT, "MPI_Init_thread"))(n, words, wanted, got);
}
int open64(const char *path, int flags, ...) {
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
    if (strstr(path, "slow.txt")) {
        if (getenv("AT_DATA")) sleep(4);
        if (getenv("STOPPED_AT_DATA")) raise(SIGSTOP);
    }
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"))(path, flags, mode);
}
"""
    )
    library = work / "slow.so"
    subprocess.run(["mpicc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)

    def with_slow_rank(variable, name, words):
        command = [REZERO, "train", *words, "--run-dir", name, "--plain"]
        slow = ["env", f"{variable}=1", f"LD_PRELOAD={library}", *command]
        begin = time.monotonic()
        job = ran([*MPIRUN, "-n", "1", *command, ":", "-n", "1", *slow])
        return job, time.monotonic() - begin

    lm = [*LM, "steps=4", "--rank-timeout", "2"]
    for variable, where in (("AT_BEGIN", "MPI_Init"), ("AT_END", "MPI_Finalize")):
        job, took = with_slow_rank(variable, f"hang-{variable}", lm)
        assert job.returncode != 0 and took < 15, (job.returncode, took)
        assert f"no answer for 2 s from other ranks, for which {where} waits" in job.stderr, job.stderr
    assert newest("hang-AT_END") == 4
    (work / "slow.txt").write_bytes(b"all of one text. " * 400)
    of = [word for word in lm if not word.startswith("data.set=")]
    of += ["--text", str(work / "slow.txt")]
    job, took = with_slow_rank("AT_DATA", "slow-data", of)
    assert job.returncode == 0 and took > 4, (took, job.stderr)
    assert "waiting for the data of rank 1 on " in job.stderr, job.stderr
    job, _ = with_slow_rank("STOPPED_AT_DATA", "stopped-data", of)
    assert job.returncode != 0 and "no answer for 2 s from rank 1 on " in job.stderr, job.stderr
    print("a rank that hangs in MPI's begin or end ends all after --rank-timeout; one that is slow with its data does not")

    job = begun("asleep", [*LM, "steps=100000", "--rank-timeout", "4"], 3)
    until("a validation", lambda: newest("asleep") >= 10)
    ranks = processes("asleep").values()
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    step = newest("asleep")
    until("further steps", lambda: newest("asleep") > step)
    job.send_signal(signal.SIGUSR1)
    said = job.communicate(timeout=60)[1]
    assert "saved; continue with" in said, said
    print("all ranks stopped for longer than --rank-timeout: the run goes on")

    places = work / "copies"
    places.mkdir()
    job = begun("asleep", ["asleep", "--resume"], 2, ["-x", f"TMPDIR={places}"])
    step = newest("asleep")
    until("further steps", lambda: newest("asleep") > step)
    until("copies that are gone", lambda: not list(places.rglob("step-*")))
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    found = json.loads(pathlib.Path("asleep/env.json").read_text())["ranks"]
    assert len(found) == 2 and all(place["host"] and place["device"] for place in found), found
    train("asleep", ["asleep", "--resume", f"steps={newest('asleep') + 1}"])
    assert "ranks" not in json.loads(pathlib.Path("asleep/env.json").read_text())
    print("the copy of a resumed run's checkpoint is removed when it has been read; env.json has the host and the device of each rank")


def own_module():
    """A program with a module of its own, without the command line: the example own_model."""
    example = str(pathlib.Path(REZERO).parent / "examples" / "own_model")
    for place, command in (("one", [example]), ("two", [*MPIRUN, "-n", "2", example])):
        pathlib.Path(place).mkdir()
        done = subprocess.run(command, env=ENV, cwd=place, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and done.stdout.count("of the validation points") == 1, done.stderr
    pairs = list(zip(trained("one/runs/own_model"), trained("two/runs/own_model"), strict=True))
    off = max(abs(a["loss"] - b["loss"]) for a, b in pairs[:5])
    assert off <= 1e-5, off
    again = subprocess.run([*MPIRUN, "-n", "2", example], env=ENV, cwd="two", capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    print(f"a program of one's own by Trainer::with_ranks: the losses of 50 steps on 2 ranks within {off:.1e} of one process")


def devices():
    done = subprocess.run([*MPIRUN, "-n", "3", REZERO, "devices", "--check", "--mpi"], env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "in the order of the ranks: ok" in done.stdout, done.stderr
    print(done.stdout.rstrip())


begin = time.monotonic()
try:
    wanted = os.environ.get("MPI_CHECKS", "").split()
    checks = (
        equal_to_accumulate, equal_to_the_whole_batch, synchronised_batch_norm, narrow_sums, another_number_of_ranks, kills, stops,
        wrong_starts, evaluations, sweeps, restarts, limits, own_module, devices,
    )
    for check in checks:
        if not wanted or check.__name__ in wanted:
            check()
            print(f"    {time.monotonic() - begin:.0f} s")
    print(f"mpi: all shown in {time.monotonic() - begin:.0f} s")
finally:
    for job in JOBS:
        if job.poll() is None:
            job.terminate()
    os.chdir("/")
    shutil.rmtree(work)
