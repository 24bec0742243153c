"""What is compared with what, and the ratio that is to be reached. Shapes are those of `clsplat bench`: B,H,N,M,D,Dv,S."""
import os

import numpy as np
import torch

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def synchroniser(on):
    return torch.cuda.synchronize if on == "cuda" else lambda: None


def random(case, on, rows, columns):
    batch, heads = case["shape"][:2]
    return torch.randn(batch, heads, rows, columns, device=on, dtype=DTYPES[case.get("dtype", "f32")])


def exact(case, on):
    """PyTorch's exact attention of the same shape."""
    _, _, queries, keys, dim, value_dim, _ = case["shape"]
    q, k, v = random(case, on, queries, dim), random(case, on, keys, dim), random(case, on, keys, value_dim)
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=case.get("causal", False)), synchroniser(on)


def two_calls(case, on):
    """Isotropic write and read as two exact attentions: the splats over the keys, then the queries over the splats."""
    _, _, queries, keys, dim, value_dim, splats = case["shape"]
    q, k, v, mean = (random(case, on, *s) for s in [(queries, dim), (keys, dim), (keys, value_dim), (splats, dim)])
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: attend(q, mean, attend(mean, k, v)), synchroniser(on)


def openblas(size):
    def make(_case, _on):
        a, b = (np.random.default_rng(i).standard_normal((size, size), np.float32) for i in range(2))
        return lambda: a @ b.T, lambda: None
    kernels = os.environ.get("OPENBLAS_CORETYPE")  # some machines set it, and OpenBLAS is half as fast then
    return {"name": f"OpenBLAS sgemm {size}³" + (f", {kernels} kernels" if kernels else ""), "make": make, "flops": 2 * size**3}


def torch_product(size):
    def make(case, on):
        a, b = (torch.randn(size, size, device=on, dtype=DTYPES[case.get("dtype", "f32")]) for _ in range(2))
        return lambda: a @ b.T, synchroniser(on)
    return {"name": f"PyTorch product {size}³", "make": make, "flops": 2 * size**3}


def least(peer, ratio):
    return {**peer, "least": ratio}


SDPA = {"name": "PyTorch SDPA", "make": exact}
TWO_SDPA = {"name": "two PyTorch SDPA calls", "make": two_calls}
BLAS = openblas(2048)


CASES = {
    "cpu": [
        {"name": "Gaussian diagonal, N = M = 65536, S = 256, D = 64", "op": "gaussian", "shape": [1, 1, 65536, 65536, 64, 64, 256],
         "peers": [least(BLAS, 1.2)]},
        {"name": "Gaussian isotropic, same shape", "op": "gaussian-isotropic", "shape": [1, 1, 65536, 65536, 64, 64, 256],
         "peers": [least(BLAS, 1.1), least(TWO_SDPA, 1.8)]},
        {"name": "softmax, N = 4096, H = 4, D = 64", "op": "softmax", "shape": [1, 4, 4096, 4096, 64, 64, 1], "peers": [least(SDPA, 1.7)]},
        {"name": "softmax causal, same shape", "op": "softmax", "causal": True, "shape": [1, 4, 4096, 4096, 64, 64, 1],
         "peers": [least(SDPA, 1.7)]},
        {"name": "softmax, one query, M = 65536, H = 4, D = 64", "op": "softmax", "shape": [1, 4, 1, 65536, 64, 64, 1], "peers": [SDPA],
         "of_copy": 0.8},
        {"name": "gemm 2048³", "op": "gemm", "shape": [1, 1, 2048, 2048, 2048], "peers": [least(BLAS, 1), torch_product(2048)]},
    ],
    "cuda": [
        *({"name": f"softmax bf16{' causal' * causal}, H = 16, D = 64, N = {n}, {row}", "op": "softmax", "dtype": "bf16", "causal": causal,
           "variant": row, "shape": [1, 16, n, n, 64, 64, 1], "peers": [least(SDPA, ratio)]}
          for causal in [False, True] for n in [4096, 16384] for row, ratio in [("mma", 0.75), ("wgmma", 1)]),
        {"name": "Gaussian isotropic bf16, N = 65536, S = 256, H = 16", "op": "gaussian-isotropic", "dtype": "bf16",
         "shape": [1, 16, 65536, 65536, 64, 64, 256], "peers": [least(TWO_SDPA, 1.6)]},
        {"name": "softmax F32, H = 16, D = 64, N = 4096", "op": "softmax", "shape": [1, 16, 4096, 4096, 64, 64, 1],
         "peers": [SDPA]},
        {"name": "gemm F32 4096³ by CLBlast", "op": "gemm", "variant": "clblast", "shape": [1, 1, 4096, 4096, 4096],
         "peers": [torch_product(4096)]},
        {"name": "gemm bf16 4096³", "op": "gemm", "dtype": "bf16", "shape": [1, 1, 4096, 4096, 4096],
         "peers": [torch_product(4096)]},
    ],
}
