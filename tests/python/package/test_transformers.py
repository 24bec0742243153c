#!/usr/bin/env python3
"""attn_implementation="clsplat" beside "eager" on small models of transformers, and replace_attention.   test_transformers.py [unittest's arguments]"""
import gc
import sys
import unittest
import warnings
import weakref

try:
    import torch
    import transformers as tr
    if int(tr.__version__.split(".")[0]) < 5:
        raise ImportError
except ImportError:
    print("skipped: test_transformers: PyTorch and transformers 5 are not installed")
    sys.exit(0)

import clsplat
import clsplat.transformers as ct

SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37)
DECODER = dict(vocab_size=99, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=None, pad_token_id=0, **SIZE)
ENCODER = dict(vocab_size=99, max_position_embeddings=512, pad_token_id=1, **SIZE)
DECODERS = {
    "llama": lambda: tr.LlamaForCausalLM(tr.LlamaConfig(**DECODER)),
    "mistral": lambda: tr.MistralForCausalLM(tr.MistralConfig(sliding_window=None, **DECODER)),
    "mistral, window 7": lambda: tr.MistralForCausalLM(tr.MistralConfig(sliding_window=7, **DECODER)),
    "qwen2": lambda: tr.Qwen2ForCausalLM(tr.Qwen2Config(**DECODER)),
    "qwen3": lambda: tr.Qwen3ForCausalLM(tr.Qwen3Config(head_dim=16, **DECODER)),
}
ENCODERS = {
    "bert": lambda: tr.BertModel(tr.BertConfig(**ENCODER)),
    "roberta": lambda: tr.RobertaModel(tr.RobertaConfig(**ENCODER)),
    "distilbert": lambda: tr.DistilBertModel(tr.DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=37)),
}


def made(make):
    torch.manual_seed(0)
    return make().eval()


def both(model, call, reference="eager"):
    """What a call gives with another attention and with ours."""
    results = []
    for name in (reference, "clsplat"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            results.append(call(model))
    return results


class Exact(unittest.TestCase):
    """The analogue of transformers' test_eager_matches_sdpa_inference: padding on either side or none, in three types."""

    def matches(self, model, seen, call):
        types = ((torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2))
        for dtype, most in types if seen is None else types[:1]:
            want, got = both(model.to(dtype), call)
            keep = slice(None) if seen is None else seen.bool()
            self.assertLess((got - want)[keep].abs().max().item(), most * max(1, want[keep].abs().max().item()))
        model.to(torch.float32)

    def masks(self):
        left, right = torch.ones(2, 20, dtype=torch.long), torch.ones(2, 20, dtype=torch.long)
        left[0, :6], right[1, -4:] = 0, 0
        return None, left, right

    def test_decoders(self):
        ids = torch.randint(2, 99, (2, 20))
        for name, make in DECODERS.items():
            for seen in self.masks():
                with self.subTest(name, mask=seen is not None):
                    self.matches(made(make), seen, lambda m: m(ids, attention_mask=seen).logits)

    def test_masks_of_four_dimensions(self):
        ids = torch.randint(2, 99, (2, 20))
        _, left, right = self.masks()
        causal = torch.ones(20, 20, dtype=torch.bool).tril()
        for make, base in ((DECODERS["llama"], causal), (ENCODERS["bert"], torch.ones_like(causal))):
            for seen in (torch.ones_like(left), left, right):
                whole = base & seen[:, None, None].bool()
                added = torch.zeros(whole.shape).masked_fill(~whole, torch.finfo(torch.float32).min)
                for mask in (whole, added):  # eager adds a mask, whatever its type
                    with self.subTest(make, seen=int(seen.sum()), dtype=mask.dtype):
                        self.matches(made(make), seen, lambda m: m(
                            ids, attention_mask=added if m.config._attn_implementation == "eager" else mask)[0])

    def test_masks_without_padded_queries(self):
        ids = torch.randint(2, 99, (2, 20))
        _, left, right = self.masks()
        causal = torch.ones(20, 20, dtype=torch.bool).tril()
        for make, base in ((DECODERS["llama"], causal), (ENCODERS["bert"], torch.ones_like(causal))):
            for seen in (left.bool(), right.bool()):
                mask = base & seen[:, None, :, None] & seen[:, None, None]
                with self.subTest(make, right=bool(seen[0].all())):
                    want, got = both(made(make), lambda m: m(ids, attention_mask=mask)[0], "sdpa")
                    self.assertLess((got - want)[seen].abs().max().item(), 1e-5 * max(1, want[seen].abs().max().item()))

    def test_inference_mode(self):
        ids, model = torch.randint(2, 99, (1, 12)), made(DECODERS["llama"])
        model.set_attn_implementation("clsplat")
        outside = torch.ones(1, 1, 12, 12, dtype=torch.bool).tril()
        want = model(ids).logits.detach()
        with torch.inference_mode():
            for mask in (outside.clone(), outside):
                self.assertLess((model(ids, attention_mask=mask).logits - want).abs().max().item(), 1e-5)
        model.train()(ids, attention_mask=outside, labels=ids).loss.backward()  # what was kept then serves training
        kept = weakref.ref(outside)
        del outside, mask
        gc.collect()
        self.assertIsNone(kept())

    def test_encoders(self):
        ids = torch.randint(2, 99, (2, 20))
        for name, make in ENCODERS.items():
            for seen in self.masks():
                with self.subTest(name, mask=seen is not None):
                    self.matches(made(make), seen, lambda m: m(ids, attention_mask=seen).last_hidden_state)

    def test_vit(self):
        pictures = torch.randn(2, 3, 30, 30)
        model = made(lambda: tr.ViTModel(tr.ViTConfig(image_size=30, patch_size=6, **SIZE)))
        self.matches(model, None, lambda m: m(pictures.to(m.dtype)).last_hidden_state)

    def test_generate(self):
        ids = torch.randint(2, 99, (2, 20))
        _, left, _ = self.masks()
        for name, make in list(DECODERS.items())[:3]:
            for cache in ("dynamic", "static"):
                for seen in (None, left):
                    with self.subTest(name, cache=cache, mask=seen is not None):
                        want, got = both(made(make), lambda m: m.generate(ids, attention_mask=seen, max_new_tokens=12, do_sample=False,
                                                                          cache_implementation=cache))
                        self.assertTrue(torch.equal(want, got))

    def test_chunked_prefill(self):
        ids = torch.randint(2, 99, (1, 40))

        def call(model):
            cache = tr.DynamicCache(config=model.config)
            return torch.cat([model(part, past_key_values=cache).logits for part in ids.split(13, 1)], 1)
        for name, make in DECODERS.items():
            with self.subTest(name):
                want, got = both(made(make), call)
                self.assertLess((got - want).abs().max().item(), 1e-5)

    def test_sinks(self):
        model = made(lambda: tr.GptOssForCausalLM(tr.GptOssConfig(num_local_experts=2, num_experts_per_tok=1, head_dim=8, sliding_window=128,
                                                                  **{**DECODER, "intermediate_size": 32})))
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.2)
        ids = torch.randint(2, 99, (1, 20))
        want, got = both(model, lambda m: m(ids).logits)
        self.assertLess(((got - want).norm() / want.norm()).item(), 1e-4)

    def test_training(self):
        model, ids, gradients = made(DECODERS["llama"]).train(), torch.randint(2, 99, (2, 20)), []
        for name in ("eager", "clsplat"):
            model.set_attn_implementation(name)
            model.zero_grad()
            model(ids, labels=ids).loss.backward()
            gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad.clone())
        self.assertLess(((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item(), 1e-4)

    def test_refusals(self):
        ids = torch.randint(2, 99, (1, 12))

        def ours(make, **more):
            model = made(make)
            model.set_attn_implementation("clsplat")
            return model
        gemma = ours(lambda: tr.Gemma2ForCausalLM(tr.Gemma2Config(head_dim=8, attn_logit_softcapping=50.0, **DECODER)))
        with self.assertRaisesRegex(clsplat.UnsupportedError, "softcap"):
            gemma(ids)
        with self.assertRaisesRegex(clsplat.UnsupportedError, "dropout"):
            ours(lambda: tr.BertModel(tr.BertConfig(**ENCODER))).train()(ids)
        llama = ours(DECODERS["llama"])
        with self.assertRaisesRegex(clsplat.UnsupportedError, "packed"):
            llama(ids, position_ids=torch.arange(6).repeat(2)[None], use_cache=False)
        one = torch.ones(6, 6, dtype=torch.bool).tril()
        with self.assertRaisesRegex(clsplat.UnsupportedError, "packed"):
            llama(ids, attention_mask=torch.block_diag(one, one).bool()[None, None])
        with self.assertRaisesRegex(clsplat.UnsupportedError, "windows"):
            llama(ids, attention_mask=torch.ones(12, 12, dtype=torch.bool).tril().triu(-3)[None, None])
        with self.assertRaisesRegex(clsplat.UnsupportedError, "all heads"):
            llama(ids, attention_mask=torch.ones(1, 4, 12, 12, dtype=torch.bool).tril())
        with self.assertRaisesRegex(clsplat.InvalidError, "no model of transformers"):
            ct.replace_attention(torch.nn.Linear(2, 2))


class Replaced(unittest.TestCase):
    def test_near_far(self):
        ids = torch.randint(2, 99, (1, 300))
        model = made(DECODERS["llama"])
        with torch.no_grad():
            want = model(ids).logits
            self.assertIs(ct.replace_attention(model, {"tolerance": 0.05}), model)
            got = model(ids).logits
            report = ct.report_of(model)
            self.assertEqual(len(report["layers"]), 2)
            self.assertLess(report["exact_share"], 0.6)
            self.assertLess(report["layers"][0]["expected_error"], 0.06)
            self.assertLess(((got - want).norm() / want.norm()).item(), 0.05)
            ct.restore(model)
            self.assertTrue(torch.equal(model(ids).logits, want))
        with self.assertRaisesRegex(clsplat.InvalidError, "was not replaced"):
            ct.report_of(model)

    def test_long_prefill(self):
        from clsplat.replacement import Replacement
        how = Replacement({"tolerance": 0.1}).how
        self.assertEqual([how(n).get("chunk") for n in (1, 64, 4095, 4096)], [None, 0, 0, 256])
        self.assertEqual([round(how(n)["tolerance"], 4) for n in (64, 4096)], [0.1, 0.0667])
        self.assertEqual(Replacement({"tolerance": 0.1, "chunk": 64}).how(8192)["chunk"], 64)
        self.assertEqual(Replacement({}).how(64)["tolerance"], None)

    def test_original_dictionary(self):
        config = {"hierarchy": {"levels": ["Token", "Phrase"], "init_splats_per_level": [20, 5], "level_weights": [0.6, 0.4]}, "sparse_topk": 64,
                  "adaptation": {"enable_adaptation": True, "adaptation_frequency": 2}}
        ids = torch.randint(2, 99, (1, 300))
        model = ct.replace_attention(made(ENCODERS["bert"]), config)
        with torch.no_grad():
            model(ids)
        report = ct.report_of(model)
        self.assertEqual(report["layers"][0]["method"], "near-far")
        self.assertLess(report["exact_share"], 64 / 300)
        self.assertEqual(len(report["notes"]), 3)
        ct.replace_attention(model, {**config, "method": "splats"})
        with torch.no_grad():
            model(ids)
            model(ids)
        self.assertEqual([(r["method"], r["calls"]) for r in ct.report_of(model)["layers"]], [("splats", 2)] * 2)
        with self.assertRaisesRegex(clsplat.InvalidError, "there is no tolerence"):
            ct.replace_attention(model, {"tolerence": 1})

    def test_create(self):
        torch.manual_seed(0)
        model = ct.create_transformer(vocab_size=17, hidden_size=32, num_hidden_layers=1, num_attention_heads=2).train()
        ids = torch.arange(34).remainder(17)[None].repeat(4, 1)
        optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
        losses = []
        for _ in range(8):
            loss = model(ids, labels=ids).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
        self.assertLess(losses[-1], 0.6 * losses[0])
        encoder = ct.create_transformer(vocab_size=17, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, decoder=False)
        self.assertEqual(encoder(ids).last_hidden_state.shape, (4, 34, 32))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tr.logging.set_verbosity_error()
    result = unittest.main(exit=False, warnings="ignore").result
    wrong = len(result.failures) + len(result.errors)
    print(f"{max(0, result.testsRun - wrong - len(result.skipped))} passed, {wrong} failed, {len(result.skipped)} skipped")
    sys.exit(wrong > 0)
