#!/usr/bin/env python3
"""The Python package beside numpy in float64: layouts, methods, gradients, models, and its manners (threads, fork, Ctrl-C, memory).

    test_binding.py [unittest's arguments]      CLSPLAT_MODEL names a folder of bytelm-4m
"""
import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

import clsplat

MODEL = os.environ.get("CLSPLAT_MODEL", str(Path(__file__).resolve().parents[3] / "demos" / "bytelm-4m"))
LONG = os.environ.get("CLSPLAT_TEST_TIER") == "long"


def softmax(q, k, v, causal=False, bias=None, scale=None):
    """Attention of [B,H,N,D] in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(group, 1), v.repeat(group, 1)
    logits = np.einsum("bhnd,bhmd->bhnm", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + np.asarray(bias, np.float64).repeat(group, 1)[:, :, None]
    if causal:
        logits = np.where(np.tril(np.ones(logits.shape[-2:], bool), logits.shape[-1] - logits.shape[-2]), logits, -np.inf)
    top = logits.max(-1, keepdims=True)
    weight = np.exp(logits - top)
    return weight @ v / weight.sum(-1, keepdims=True), (top + np.log(weight.sum(-1, keepdims=True)))[..., 0]


def gaussian(q, k, v, p):
    """Attention through diagonal splats of every head in float64."""
    w = np.exp(p["level_log_weight"])[p["level"]] * np.exp(p["log_amplitude"].astype(np.float64))
    precision = np.exp(-p["log_var"].astype(np.float64) - p["log_temperature"][..., None])

    def response(x):
        return np.exp(-0.5 * ((x[:, :, :, None] - p["mean"][None, :, None]) ** 2 * precision[None, :, None]).sum(-1))
    weight = np.einsum("hs,bhns,bhms->bhnm", w, response(q.astype(np.float64)), response(k.astype(np.float64)))
    return weight @ v / weight.sum(-1, keepdims=True)


def off(have, want):
    return float(np.linalg.norm(np.asarray(have, np.float64) - want) / np.linalg.norm(want))


class Foreign:
    """An array of another library, which has DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


class Attend(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(1)

    def qkv(self, b=2, h=4, hk=2, n=37, m=53, d=24, dv=40, dtype=np.float32):
        return [self.rng.standard_normal(s).astype(dtype) for s in ((b, h, n, d), (b, hk, m, d), (b, hk, m, dv))]

    def test_softmax(self):
        for causal in (False, True):
            q, k, v = self.qkv()
            bias = self.rng.standard_normal((2, 2, 53)).astype(np.float32)
            bias[1, :, 40:] = -np.inf
            got = clsplat.attend(q, k, v, causal=causal, key_bias=bias, details=True)
            want, lse = softmax(q, k, v, causal, bias)
            self.assertLess(off(got.out, want), 1e-6)
            self.assertLess(off(got.lse, lse), 1e-6)
        self.assertLess(off(clsplat.attend(q, k, v, scale=0.5), softmax(q, k, v, scale=0.5)[0]), 1e-6)
        self.assertLess(off(clsplat.attend(q, k, v, key_bias=bias[0, 0]), softmax(q, k, v, bias=np.broadcast_to(bias[0, 0], (2, 2, 53)))[0]), 1e-6)

    def test_dimensions(self):
        q, k, v = self.qkv(b=1, h=2, hk=2)
        want = softmax(q, k, v)[0]
        self.assertLess(off(clsplat.attend(q[0], k[0], v[0]), want[0]), 1e-6)
        self.assertLess(off(clsplat.attend(q[0, 1], k[0, 1], v[0, 1]), want[0, 1]), 1e-6)

    def test_strides(self):
        q, k, v = self.qkv()
        want = softmax(q, k, v)[0]
        turned = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (q, k, v)]
        out = np.zeros((2, 37, 4, 40), np.float32)
        result = clsplat.attend(*turned, out=out.transpose(0, 2, 1, 3))
        self.assertTrue(np.shares_memory(result, out))
        self.assertLess(off(out.transpose(0, 2, 1, 3), want), 1e-6)
        for how in (lambda x: np.asfortranarray(x), lambda x: x[..., ::-1].copy()[..., ::-1], lambda x: x[:, :, ::-1].copy()[:, :, ::-1],
                    lambda x: np.repeat(x, 2, -1)[..., ::2]):
            self.assertLess(off(clsplat.attend(how(q), how(k), how(v)), want), 1e-6)
        same = np.broadcast_to(k[:1, :1, :1], k.shape)  # all strides 0
        self.assertLess(off(clsplat.attend(q, same, v), softmax(q, same, v)[0]), 1e-6)

    def test_no_copies(self):
        from clsplat import arrays
        x = np.zeros((5, 7, 3, 16), np.float32).transpose(0, 2, 1, 3)
        t, keep = arrays.tensor("x", arrays.describe("x", x))
        self.assertIs(keep, x)
        self.assertEqual(t.host, x.ctypes.data)
        self.assertEqual(list(t.stride), [7 * 3 * 16, 16, 3 * 16])

    def test_dtypes_and_foreign(self):
        q, k, v = self.qkv(dtype=np.float16)
        got = clsplat.attend(q, k, v)
        self.assertEqual(got.dtype, np.float16)
        self.assertLess(off(got, softmax(q, k, v)[0]), 1e-3)
        q, k, v = self.qkv()
        want = softmax(q, k, v)[0]
        self.assertLess(off(clsplat.attend(Foreign(q), Foreign(k), Foreign(v)), want), 1e-6)
        self.assertLess(off(clsplat.attend(memoryview(q), memoryview(k), memoryview(v)), want), 1e-6)
        self.assertLess(off(clsplat.attend(q[0, 0].tolist(), k[0, 0].tolist(), v[0, 0].tolist()), want[0, 0]), 1e-6)

    def test_near_far(self):
        q, k, v = self.qkv(b=1, n=600, m=600, d=32, dv=32)
        want = softmax(q, k, v, causal=True)[0]
        self.assertLess(off(clsplat.attend(q, k, v, causal=True, method="near-far", tolerance=0), want), 1e-5)
        got = clsplat.attend(q, k, v, causal=True, tolerance=0.1, details=True)
        self.assertLess(off(got.out, want), 0.1)
        self.assertEqual(got.exact_keys.dtype, np.int32)
        self.assertLess(got.exact_keys.mean(), 300)
        self.assertTrue(np.isfinite(got.error_estimate).all())

    def test_splats(self):
        q, k, v = self.qkv(h=2)
        levels = {"hierarchy": {"levels": ["fine", "coarse"], "init_splats_per_level": [12, 3], "level_weights": [3, 1]}}
        splats = clsplat.Splats.init(q, k, hierarchy=levels, variance_scale=20)
        self.assertEqual((len(splats), splats.level_names, splats.covariance), (15, ["fine", "coarse"], "diagonal"))
        self.assertLess(off(clsplat.attend(q, k, v, splats=splats), gaussian(q, k, v, splats.parameters)), 1e-5)
        splats.parameters["log_amplitude"][:, :5] += 1
        splats.changed()
        self.assertLess(off(clsplat.attend(q, k, v, splats=splats), gaussian(q, k, v, splats.parameters)), 1e-5)
        with tempfile.TemporaryDirectory() as folder:
            splats.save(Path(folder) / "s.safetensors")
            again = clsplat.Splats.load(Path(folder) / "s.safetensors")
        for name, value in splats.parameters.items():
            self.assertTrue(np.array_equal(value, again.parameters[name]), name)
        splats.parameters["mean"][0, 3, 1] = np.nan
        with self.assertRaisesRegex(clsplat.InvalidError, "mean"):
            splats.changed()

    def test_adapt(self):
        q, k, v = self.qkv(b=1, h=2, hk=2, n=96, m=96, d=8, dv=8)
        splats = clsplat.Splats.init(q, k, hierarchy={"levels": ["a", "b"], "init_splats_per_level": [6, 3]}, match="softmax")
        seen = []
        done = clsplat.adapt(splats, q, k, v, cycles=2, most=[8, 3], progress=seen.append)
        self.assertLess(done.error_after, done.error_before)
        self.assertTrue(seen and done.events and {"decision", "error_after", "kept"} <= set(done.events[0]))
        heads = clsplat.measure(done.splats, q, k, v)
        self.assertEqual(len(heads), 2)
        self.assertAlmostEqual(heads[0]["use"].sum(), 1, places=4)
        self.assertEqual(heads[0]["flow"].shape, (2, 2))
        self.assertGreaterEqual(heads[0]["kullback_leibler"][0], 0)

    def test_parameters_outlive(self):
        mean = clsplat.Splats(count=4, dim=3).parameters["mean"]
        clsplat.Splats(count=4, dim=3).close()
        self.assertTrue((mean == 0).all())

    def test_backward(self):
        q, k, v = self.qkv(n=9, m=11, d=8, dv=8)
        g = self.rng.standard_normal((2, 4, 9, 8)).astype(np.float32)
        bias = self.rng.standard_normal((2, 2, 11)).astype(np.float32)
        r = clsplat.attend(q, k, v, causal=True, key_bias=bias, details=True)
        grads = clsplat.attend_backward(q, k, v, r.out, r.lse, g, causal=True, key_bias=bias)
        inputs = [x.astype(np.float64) for x in (q, k, v, bias)]
        for which, got in enumerate(grads[:4]):
            for _ in range(6):
                at = tuple(self.rng.integers(0, n) for n in inputs[which].shape)
                sides = []
                for step in (1e-5, -1e-5):
                    moved = [x.copy() for x in inputs]
                    moved[which][at] += step
                    sides.append((softmax(*moved[:3], causal=True, bias=moved[3])[0] * g).sum())
                self.assertAlmostEqual(got[at], (sides[0] - sides[1]) / 2e-5, delta=2e-5)
        splats = clsplat.Splats.init(q, k, hierarchy={"levels": ["a"], "init_splats_per_level": [5]})
        r = clsplat.attend(q, k, v, splats=splats, details=True)
        grads = clsplat.attend_backward(q, k, v, r.out, r.lse, g, splats=splats)
        self.assertEqual(set(grads.splats), {"mean", "log_var", "log_amplitude", "log_temperature", "level_log_weight"})
        self.assertLess(np.abs(grads.splats["log_amplitude"].sum(-1)).max(), 1e-4)
        self.assertGreater(np.abs(grads.splats["mean"]).max(), 1e-4)

    def test_refusals(self):
        q, k, v = self.qkv()
        for error, words, call in (
                (clsplat.InvalidError, r"astype\('float32'\)", lambda: clsplat.attend(q.astype(float), k, v)),
                (clsplat.ShapeError, "q has 3 dimensions|dimensions; they", lambda: clsplat.attend(q[0], k, v)),
                (clsplat.ShapeError, "k has shape", lambda: clsplat.attend(q, k[..., :7], v)),
                (clsplat.ShapeError, "every dimension is at least 1", lambda: clsplat.attend(q[:, :, :0], k, v)),
                (clsplat.ShapeError, "multiple", lambda: clsplat.attend(q[:, :3], k, v)),
                (clsplat.InvalidError, "there is no method", lambda: clsplat.attend(q, k, v, method="far")),
                (clsplat.InvalidError, "needs splats", lambda: clsplat.attend(q, k, v, method="splats")),
                (clsplat.InvalidError, "0 or more", lambda: clsplat.attend(q, k, v, tolerance=-1)),
                (clsplat.ShapeError, "out has shape", lambda: clsplat.attend(q, k, v, out=np.empty((1, 2), np.float32))),
                (clsplat.ShapeError, "rows must be contiguous", lambda: clsplat.attend(q, k, v, out=np.empty((40, 37, 4, 2), np.float32).T)),
                (clsplat.FileError, "nowhere", lambda: clsplat.Splats.load("/nowhere/at/all")),
                (clsplat.InvalidError, "NUL", lambda: clsplat.Splats.load("/etc/passwd\0.safetensors")),
                (clsplat.InvalidError, "NUL", lambda: clsplat.Device("0\0Z80")),
                (clsplat.NoDeviceError, "Z80", lambda: clsplat.Device("Z80"))):
            with self.assertRaisesRegex(error, words):
                call()
        with clsplat.Device() as device:
            splats = clsplat.Splats(count=2, dim=24, device=device)
            with self.assertRaisesRegex(clsplat.InvalidError, "another Device"):
                clsplat.attend(q, k, v, splats=splats, device=clsplat.default_device())
        with self.assertRaisesRegex(clsplat.InvalidError, "closed"):
            clsplat.attend(q, k, v, device=device)
        with self.assertRaisesRegex(clsplat.InvalidError, "closed"):
            len(splats)


class Manners(unittest.TestCase):
    def test_devices(self):
        self.assertIn("limits", clsplat.devices()[0])
        self.assertEqual(clsplat.default_device().info["type"], "cpu")
        self.assertIn("now", clsplat.default_device().memory)

    def test_threads(self):
        q, k, v = np.random.default_rng(2).standard_normal((3, 2, 64, 16)).astype(np.float32)
        want, failures = clsplat.attend(q, k, v), []

        def work(scale):
            for _ in range(40):
                if not np.array_equal(clsplat.attend(q * scale, k, v / scale) * scale, clsplat.attend(q * scale, k, v)):
                    failures.append(scale)
        threads = [threading.Thread(target=work, args=(2.0**i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.assertTrue(np.array_equal(clsplat.attend(q, k, v), want))

    def test_threads_run_meanwhile(self):
        q, k, v = np.zeros((3, 2, 6000, 64), np.float32)
        counted, stop = [0], threading.Event()

        def count():
            while not stop.is_set():
                counted[0] += 1
                time.sleep(0.001)
        thread = threading.Thread(target=count)
        clsplat.attend(q[:, :64], k[:, :64], v[:, :64])
        thread.start()
        began = counted[0]
        clsplat.attend(q, k, v)
        ran = counted[0] - began
        stop.set()
        thread.join()
        self.assertGreater(ran, 3)

    def test_fork(self):
        x = np.ones((8, 8), np.float32)
        clsplat.attend(x, x, x)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            words = []
            for call in (lambda: clsplat.attend(x, x, x), clsplat.Device, clsplat.devices):
                try:
                    call()
                    words.append("no error")
                except clsplat.ForkedError as error:
                    words.append(str(error))
            os.write(writing, "|".join(words).encode())
            clsplat.default_device().close()
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        words = os.read(reading, 4096).decode()
        self.assertEqual(words.count("forkserver"), 3, words)
        clsplat.attend(x, x, x)

    def test_interrupt(self):
        q, k, v = np.zeros((3, 4, 12288, 64), np.float32)
        old = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with self.assertRaises(KeyboardInterrupt):
                for _ in range(20):
                    clsplat.attend(q, k, v)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        clsplat.attend(q[:, :8], k[:, :8], v[:, :8])

    def test_progress(self):
        q, k, v = np.zeros((3, 1, 64, 16), np.float32)
        seen = []
        clsplat.attend(q, k, v, progress=seen.append)
        self.assertEqual(seen[-1], 1)
        with self.assertRaises(clsplat.CancelledError):
            clsplat.attend(q, k, v, progress=lambda done: False)
        with self.assertRaises(ZeroDivisionError):
            clsplat.attend(q, k, v, progress=lambda done: 1 / 0)
        with self.assertRaisesRegex(clsplat.InvalidError, "own device"):
            clsplat.attend(q, k, v, progress=lambda done: clsplat.attend(q, k, v))

    def test_memory(self):
        q, k, v = np.random.default_rng(3).standard_normal((3, 2, 32, 16)).astype(np.float32)

        def work(times):
            for _ in range(times):
                clsplat.attend(q, k, v, causal=True)
                clsplat.attend(q, k, v, splats=clsplat.Splats(count=4, dim=16), details=True)
        work(200)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work(10000 if LONG else 1000)
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 4096)
        self.assertLess(len(clsplat.default_device()._children.ends), 50)

    def test_no_device(self):
        program = "import clsplat\ntry:\n  clsplat.attend([[1.]], [[1.]], [[1.]])\nexcept clsplat.NoDeviceError as e:\n  print(e)"
        environment = {**os.environ, "OCL_ICD_VENDORS": "/nowhere", "CLSPLAT_DEVICE": ""}
        words = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True).stdout
        self.assertIn("pocl-opencl-icd", words)
        self.assertIn("intel-opencl-rt", words)

    def test_tune(self):
        with tempfile.TemporaryDirectory() as folder:
            program = ("import clsplat\nseen = []\n"
                       "try:\n  clsplat.tune('gemm', seconds=5, queries=64, keys=64, dim=32, progress=lambda s: seen.append(s) or len(seen) < 3)\n"
                       "except clsplat.CancelledError: print(len(seen), seen[-1]['op'])")
            run = subprocess.run([sys.executable, "-c", program], env={**os.environ, "XDG_DATA_HOME": folder}, capture_output=True, text=True)
        self.assertIn("3 gemm", run.stdout, run.stderr)

    def test_report(self):
        q, k, v = np.random.default_rng(6).standard_normal((3, 2, 80, 16)).astype(np.float32)
        splats = clsplat.Splats.init(q, k, hierarchy={"levels": ["a"], "init_splats_per_level": [5]})
        with tempfile.TemporaryDirectory() as folder:
            page, picture = Path(folder) / "r.html", Path(folder) / "r.svg"
            numbers = clsplat.report((q, k, v), page, svg=picture, picture="errors", causal=True, tolerance=0.1, rows=[5, 79], device=clsplat.default_device())
            self.assertEqual((numbers["keys"], numbers["causal"]), (80, True))
            self.assertIn("</html>", page.read_text())
            self.assertIn("<svg", picture.read_text())
            self.assertEqual(len(clsplat.report(splats, page)["levels"]), 1)
            self.assertEqual(clsplat.report(MODEL, page, text="def main():\n")["layers"], 6)
            with self.assertRaisesRegex(clsplat.Error, "nowhere"):
                clsplat.report("/nowhere", page, text="words")

    def test_report_command(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(clsplat.device, "_default", None):
            told = Path(folder) / "told"
            told.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
            told.chmod(0o755)
            with mock.patch.dict(os.environ, CLSPLAT_COMMAND=str(told)):
                self.assertEqual(clsplat.report("-x", text=Path("-y")), ["report", "./-x", "./-y", "--json"])
                clsplat.set_default_device("cpu")
                self.assertEqual(clsplat.report("x"), ["report", "x", "--device=cpu", "--json"])
                self.assertEqual(clsplat.report("x", device=1), ["report", "x", "--device=1", "--json"])
                clsplat.default_device().close()
                self.assertEqual(clsplat.report("x"), ["report", "x", "--json"])

    def test_structures(self):
        self.assertEqual(ctypes.sizeof(clsplat._c.clsplat_tensor), 88)
        self.assertEqual(clsplat.__version__, clsplat._library.functions().version().decode())


class Models(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = clsplat.Model(MODEL)

    def test_generate(self):
        text = "".join(self.model.generate("def main():\n", 24))
        with self.model.session(64) as session:
            tokens = self.model.encode("def main():\n")
            logits = session.feed(tokens, logits=True)[-1]
            self.assertLess(off(logits, session.logits()), 1e-5)
            for _ in range(24):
                tokens.append(int(session.logits().argmax()))
                session.feed(tokens[-1:])
            self.assertEqual(len(session), len(tokens))
        self.assertEqual(self.model.decode(tokens), "def main():\n" + text)
        pieces = self.model.generate("def", 1000)
        next(pieces)
        pieces.close()  # an iterator that nobody reads to its end

    def test_eval(self):
        text = (Path(MODEL) / "heldout.txt").read_bytes()[:2000]
        exact = self.model.eval(text)
        self.assertEqual(exact.tokens, 1999)
        self.assertEqual(exact.exact_share, 1)
        near = self.model.eval(text, tolerance=0.05)
        self.assertLess(near.exact_share, 0.9)
        self.assertLess(abs(near.bits_per_byte / exact.bits_per_byte - 1), 0.01)

    def test_refusals(self):
        with self.assertRaisesRegex(clsplat.Error, "encoder|writes"):
            self.model.embed("a text")
        with self.assertRaises(clsplat.Error):
            clsplat.Model("/nowhere/at/all/nothing")
        with self.assertRaisesRegex(clsplat.InvalidError, "there is no method"):
            self.model.session(8, method="guess")
        model = clsplat.Model(MODEL)
        session = model.session(16)
        model.close()
        with self.assertRaisesRegex(clsplat.InvalidError, "closed"):
            session.feed([1])


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    wrong = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - wrong - len(result.skipped)} passed, {wrong} failed, {len(result.skipped)} skipped")
    sys.exit(wrong > 0)
