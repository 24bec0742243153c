"""A model whose layers attend in different ways, in PyTorch: src/model/pattern.h, and for splat layers src/op/splat/splat_layer.h."""
import json
import math


def rms(x, epsilon):
    return x * (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()


def turned(x, theta):
    """x [B,H,T,D] with rotary positions."""
    import torch

    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None].float() * theta ** (-torch.arange(half).float() / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def log_density(x, mean, log_precision):
    """[B,H,T,S] of x [B,H,T,D] in the splats of each head, [H,S,D]."""
    y = rms(x, 1e-5)[:, :, :, None]
    return -0.5 * ((y - mean[None, :, None]) ** 2 * log_precision.exp()[None, :, None]).sum(-1)


class Model:
    def __init__(self, folder):
        from safetensors.torch import load_file

        self.c = json.loads((folder / "config.json").read_text())
        self.w = {n: t.clone().requires_grad_() for n, t in load_file(folder / "model.safetensors").items()}
        self.heads, self.kv = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        self.dim = self.c["hidden_size"] // self.heads

    def attention(self, h, at, kind):
        import torch

        B, T, _ = h.shape
        w = {n.split(".")[-2]: self.w[n] for n in self.w if n.startswith(at) and n.endswith(".weight")}
        split = lambda x, n: x.view(B, T, n, self.dim).transpose(1, 2)
        spread = lambda x: x.repeat_interleave(self.heads // self.kv, 1)
        q, k, v = split(h @ w["q_proj"].T, self.heads), split(h @ w["k_proj"].T, self.kv), split(h @ w["v_proj"].T, self.kv)
        if "splat_shift" in w:  # something of the token before; the first has none
            before = lambda x: torch.cat([x[:, :, :1], x[:, :, :-1]], 2)
            mixes = w["splat_shift"].split([q.shape[1] * self.dim, k.shape[1] * self.dim, v.shape[1] * self.dim])
            q, k, v = (x + mix.view(-1, 1, self.dim) * (before(x) - x) for x, mix in zip((q, k, v), mixes))
        i, j = torch.arange(T)[:, None], torch.arange(T)[None]
        theta, C = self.c["rope_theta"], self.c["splat_chunk"]
        logits = turned(q, theta) @ spread(turned(k, theta)).transpose(-1, -2) / math.sqrt(self.dim)
        sees = {"softmax": j <= i, "window": (j <= i) & (j > i - self.c["sliding_window"]), "splat": (j <= i) & (j // C >= i // C - 1)}
        half = self.c["sliding_window"] // 2
        if not self.c.get("is_decoder", True):  # and the splats of an encoder see all keys of a window
            near = (i - j).abs() <= half
            sees = {"softmax": torch.ones(T, T, dtype=torch.bool), "window": near, "splat": near}
        far = j // C < i // C - 1 if self.c.get("is_decoder", True) else torch.ones(T, T, dtype=torch.bool)
        values = [(logits.masked_fill(~sees[kind], -math.inf), spread(v))]
        if kind == "splat":
            # One pair of a query and a far key: over splats the key's share times the weight of their mean. Nothing falls in an encoder.
            mean, precision = (w[n].view(self.kv, -1, self.dim) for n in ("splat_mean", "splat_log_precision"))
            density = log_density(k, mean, precision) + w["splat_log_amplitude"].view(1, self.kv, 1, -1)
            strength = (h @ w["splat_strength"].T + self.w[at + "self_attn.splat_strength.bias"]).transpose(1, 2)
            read = q @ mean.repeat_interleave(self.heads // self.kv, 0).transpose(-1, -2) / math.sqrt(self.dim)
            pairs = torch.logsumexp(read[:, :, :, None] + spread(torch.log_softmax(density, -1) + strength[..., None])[:, :, None], -1)
            if "splat_decay" in w:
                fall = torch.nn.functional.softplus(h @ w["splat_decay"].T + self.w[at + "self_attn.splat_decay.bias"]).transpose(1, 2)
                fallen = fall.cumsum(-1)  # of a key what comes behind it, up to the query's chunk
                before = torch.nn.functional.pad(fallen, (1, 0))[:, :, torch.arange(T) // C * C]
                pairs = pairs - spread(before)[..., None] + spread(fallen)[:, :, None]
            values.append((pairs.masked_fill(~far, -math.inf), spread(v)))
        weights = torch.softmax(torch.cat([logit for logit, _ in values], -1), -1)
        out = weights @ torch.cat([v for _, v in values], -2)
        return out.transpose(1, 2).reshape(B, T, -1) @ w["o_proj"].T

    def __call__(self, rows):
        return self.rows(rows) @ self.w["model.embed_tokens.weight"].T

    def rows(self, rows):
        from torch.nn.functional import silu

        e, epsilon = self.w["model.embed_tokens.weight"], self.c["rms_norm_eps"]
        x = e[rows]
        for n in range(self.c["num_hidden_layers"]):
            at = f"model.layers.{n}."
            kind = self.c["attention"][n % len(self.c["attention"])]
            x = x + self.attention(rms(x, epsilon) * self.w[at + "input_layernorm.weight"], at, kind)
            h = rms(x, epsilon) * self.w[at + "post_attention_layernorm.weight"]
            gate, up, down = (self.w[at + f"mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
            x = x + (silu(h @ gate.T) * (h @ up.T)) @ down.T
        return rms(x, epsilon) * self.w["model.norm.weight"]


def load(folder):
    model = Model(folder)
    return model, model.rows, model.w
