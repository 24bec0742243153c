#!/usr/bin/env python3
"""Attention over PyTorch's tensors: beside its own, gradients, opcheck, gradcheck, torch.compile.   test_torch.py [unittest's arguments]"""
import math
import os
import resource
import sys
import unittest

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("skipped: test_torch: PyTorch is not installed")
    sys.exit(0)

import numpy as np

import clsplat
import clsplat.torch

HOW = (True, math.nan, "exact", math.nan, 0, "joint", 0, 0, 0)


def qkv(b=2, h=4, hk=2, n=19, m=19, d=16, dtype=torch.float32, grad=False):
    torch.manual_seed(1)
    return [torch.randn(s, dtype=dtype, requires_grad=grad) for s in ((b, h, n, d), (b, hk, m, d), (b, hk, m, d))]


class Torch(unittest.TestCase):
    def test_forward(self):
        for dtype, most in ((torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
            q, k, v = qkv(dtype=dtype)
            want = F.scaled_dot_product_attention(*(x.double() for x in (q, k, v)), is_causal=True, enable_gqa=True)
            got = clsplat.attend(q, k, v, causal=True)
            self.assertEqual(got.dtype, dtype)
            self.assertLess((got.double() - want).norm() / want.norm(), most)
            turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
            self.assertTrue(torch.equal(clsplat.attend(*turned, causal=True), got))
        self.assertEqual(clsplat.attend(q[0, 0], k[0, 0], v[0, 0]).shape, (19, 16))

    def test_gradients(self):
        q, k, v = qkv(grad=True)
        bias = torch.randn(2, 1, 19, requires_grad=True)
        dout = torch.randn(2, 4, 19, 16)
        got = torch.autograd.grad(clsplat.attend(q, k, v, causal=True, key_bias=bias), (q, k, v, bias), dout)
        mask = bias[:, :, None].double() + torch.full((19, 19), -math.inf, dtype=torch.float64).triu(1)
        want = torch.autograd.grad(F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask, enable_gqa=True), (q, k, v, bias),
                                   dout.double())
        for a, b in zip(got, want):
            self.assertLess((a - b).norm() / b.norm(), 1e-5)

    def test_checks(self):
        q, k, v = qkv(n=5, m=5, d=4, grad=True)
        torch.library.opcheck(torch.ops.clsplat.attend.default, (q, k, v, None, *HOW))
        torch.library.opcheck(torch.ops.clsplat.attend.default, (q, k, v, torch.randn(2, 1, 5), *HOW))
        torch.library.opcheck(torch.ops.clsplat.attend.default, (q[0], k[0], v[0], None, *HOW))
        self.assertTrue(torch.autograd.gradcheck(lambda *x: clsplat.torch.attend(*x, causal=True), (q, k, v), eps=1e-2, atol=2e-3, rtol=1e-2,
                                                 nondet_tol=0))

    def test_compile(self):
        def layer(q, k, v):
            return clsplat.torch.attend(q * 2, k, v, causal=True).square().sum()
        q, k, v = qkv(grad=True)
        whole = torch.compile(layer, fullgraph=True, backend="aot_eager")
        self.assertAlmostEqual(whole(q, k, v).item(), layer(q, k, v).item(), places=3)
        for a, b in zip(torch.autograd.grad(whole(q, k, v), (q, k, v)), torch.autograd.grad(layer(q, k, v), (q, k, v))):
            self.assertLess((a - b).norm() / b.norm(), 1e-6)

    def test_near_far(self):
        q, k, v = qkv(b=1, n=400, m=400, grad=True)
        want = clsplat.attend(q, k, v, causal=True)
        out = clsplat.attend(q, k, v, causal=True, tolerance=0.05)
        self.assertLess((out - want).norm() / want.norm(), 0.05)
        dout = torch.randn_like(out)
        near, exact = (torch.autograd.grad(x, (q, k, v), dout) for x in (out, want))
        for a, b in zip(near, exact):
            self.assertLess(((a - b).norm() / b.norm()).item(), 0.1)
        for a, b in zip(torch.autograd.grad(clsplat.attend(q, k, v, causal=True, method="near-far", tolerance=0), (q, k, v), dout), exact):
            self.assertLess(((a - b).norm() / b.norm()).item(), 1e-5)

    def test_eager_and_operation(self):
        """Without PyTorch's dispatcher the same comes out as with it, and modes and transforms see the operation."""
        q, k, v = qkv(grad=True)
        dout = torch.randn(2, 4, 19, 16)
        operation = torch.ops.clsplat.attend(q, k, v, None, *HOW)[0]
        eager = clsplat.torch.attend(q, k, v, causal=True)
        self.assertTrue(torch.equal(operation, eager))
        for a, b in zip(torch.autograd.grad(operation, (q, k, v), dout), torch.autograd.grad(eager, (q, k, v), dout)):
            self.assertTrue(torch.equal(a, b))
        from torch._subclasses.fake_tensor import FakeTensorMode
        with FakeTensorMode(allow_non_fake_inputs=True):
            self.assertEqual(clsplat.torch.attend(q, k, v, causal=True).shape, (2, 4, 19, 16))

    def test_splats(self):
        q, k, v = qkv(b=1, h=2, hk=2, n=64, m=64)
        splats = clsplat.Splats.init(q, k, hierarchy={"levels": ["a", "b"], "init_splats_per_level": [8, 4]}, variance_scale=4)
        out = clsplat.attend(q, k, v, splats=splats)
        self.assertTrue(np.allclose(out.numpy(), clsplat.attend(q.numpy(), k.numpy(), v.numpy(), splats=splats), atol=1e-6))
        layer = clsplat.torch.SplatAttention(splats)
        target = F.scaled_dot_product_attention(q, k, v)
        optimiser = torch.optim.Adam(layer.parameters(), 0.05)
        losses = []
        for _ in range(12):
            optimiser.zero_grad()
            loss = (layer(q, k, v) - target).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        self.assertLess(losses[-1], 0.9 * losses[0])

    def test_memory(self):
        q, k, v = qkv(grad=True)

        def work(times):
            for _ in range(times):
                torch.autograd.grad(clsplat.torch.attend(q, k, v, causal=True).sum(), (q, k, v))
        work(100)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        work(10000 if os.environ.get("CLSPLAT_TEST_TIER") == "long" else 500)
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 8192)

    def test_refusals(self):
        q, k, v = qkv()
        with self.assertRaisesRegex(clsplat.InvalidError, r"q.float\(\)"):
            clsplat.attend(q.double(), k, v)
        q.requires_grad_()
        out, lse = clsplat.torch.attend(q, k, v, return_lse=True)
        self.assertEqual((out.requires_grad, lse.requires_grad), (True, False))


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    wrong = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - wrong - len(result.skipped)} passed, {wrong} failed, {len(result.skipped)} skipped")
    sys.exit(wrong > 0)
