#!/usr/bin/env python3
"""How long PyTorch takes for a step of training the 4.5 M model.   train_step.py [--steps N] [--batch B] [--context T] [--float32] [--eager]

A byte-level Llama-like decoder (6 layers, width 256, 4 heads of 64, 704), softmax attention by SDPA, AdamW, clipping, BF16 by autocast and
torch.compile on a GPU. Prints one line of JSON: seconds of a step (the median after warming up) and tokens a second.
"""
import argparse
import json
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

WIDTH, HEADS, LAYERS, INNER, BYTES = 256, 4, 6, 704, 256


def rms(x, weight):
    return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5).to(x.dtype) * weight


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate_up, self.down = nn.Linear(WIDTH, 2 * INNER, bias=False), nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x, cosine, sine):
        def turned(t):
            lower, upper = t.float().chunk(2, -1)
            return torch.cat([lower * cosine - upper * sine, upper * cosine + lower * sine], -1).to(t.dtype)

        batch, length, _ = x.shape
        q, k, v = (t.view(batch, length, HEADS, -1).transpose(1, 2) for t in self.qkv(rms(x, self.before)).chunk(3, -1))
        heads = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).reshape(batch, length, WIDTH))
        gate, up = self.gate_up(rms(x, self.between)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, length, device):
        super().__init__()
        self.embedding, self.blocks = nn.Embedding(BYTES, WIDTH), nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.Parameter(torch.ones(WIDTH))
        dim = WIDTH // HEADS
        angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
        self.cosine, self.sine = angles.cos().to(device), angles.sin().to(device)

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return F.linear(rms(x, self.norm), self.embedding.weight)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    o = parser.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)
    model = Model(o.context, device).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=device == "cuda")
    ids = torch.randint(0, BYTES, (o.batch, o.context + 1), device=device)

    def loss_of(rows):
        logits = model(rows[:, :-1]).float()
        return F.cross_entropy(logits.reshape(-1, BYTES), rows[:, 1:].reshape(-1))

    compiled = loss_of if o.eager or device == "cpu" else torch.compile(loss_of)
    times = []
    for _ in range(o.steps):
        begin = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=not o.float32 and device == "cuda"):
            loss = compiled(ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss.item()
        times.append(time.perf_counter() - begin)
    median = sorted(times[len(times) // 3 :])[len(times[len(times) // 3 :]) // 2]
    print(json.dumps({"seconds": round(median, 5), "tokens_per_second": round(o.batch * o.context / median), "device": device,
                      "type": "F32" if o.float32 or device == "cpu" else "BF16", "loss": round(loss.item(), 4)}))


if __name__ == "__main__":
    main()
