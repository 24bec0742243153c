#!/usr/bin/env python3
"""The original system's names: presets, pictures, monitor and metrics; with transformers also its models.   test_hsa.py [unittest's arguments]"""
import math
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

import clsplat
from clsplat.hsa import (PRESETS, AdaptationMonitor, HSAVisualizer, InformationMetricsTracker, create_hsa_transformer, create_preset_config,
                         replace_attention_with_hsa)

try:
    import torch
    import transformers as tr
    MODELS = int(tr.__version__.split(".")[0]) >= 5
except ImportError:
    MODELS = False


class Names(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tokens = np.random.default_rng(4).standard_normal((80, 8)).astype(np.float32)
        levels = {"levels": ["Token", "Phrase"], "init_splats_per_level": [9, 4], "level_weights": [0.6, 0.4]}
        cls.splats = clsplat.Splats.init(cls.tokens, cls.tokens, hierarchy=levels, match="softmax")

    def test_presets(self):
        for name in PRESETS:
            hierarchy = create_preset_config(name)["hierarchy"]
            self.assertEqual(len(hierarchy["levels"]), len(hierarchy["init_splats_per_level"]))
            self.assertAlmostEqual(sum(hierarchy["level_weights"]), 1)
        long = create_preset_config("long_context", sequence_length=10000)["hierarchy"]
        self.assertEqual(long["init_splats_per_level"], [800, 400, 200, 80, 20])
        with self.assertRaisesRegex(clsplat.InvalidError, "standard_text"):
            create_preset_config("short")

    def test_pictures(self):
        with tempfile.TemporaryDirectory() as folder:
            visualizer = HSAVisualizer(output_dir=folder)
            matrix = np.random.default_rng(5).random((20, 20))
            for path in (visualizer.visualize_attention_matrix(matrix, tokens=[f"<{i}>" for i in range(20)]),
                         visualizer.visualize_splat_distribution(self.splats, self.tokens), visualizer.visualize_hierarchy(self.splats)):
                self.assertGreater(len(ElementTree.parse(path).getroot()), 2)
            shapes = ElementTree.parse(visualizer.visualize_splat_distribution(self.splats, self.tokens)).getroot()
            self.assertEqual(sum(x.tag.endswith("ellipse") for x in shapes), 13)
            page = Path(visualizer.create_dashboard(self.splats, matrix, self.tokens)).read_text()
            self.assertEqual(page.count("<svg"), 4)

    def test_monitor(self):
        monitor = AdaptationMonitor()
        clsplat.adapt(self.splats, self.tokens, self.tokens, self.tokens, cycles=2, most=[12, 6])
        stats = monitor.get_adaptation_stats()
        self.assertGreater(stats["total_adaptations"], 0)
        self.assertEqual(stats["total_adaptations"], sum(stats[f"{kind}_count"] for kind in AdaptationMonitor.KINDS))

    def test_metrics(self):
        tracker = InformationMetricsTracker()
        metrics = tracker.compute_all_metrics(self.splats, self.tokens, None)
        self.assertLess(metrics["attention_entropy"], math.log2(80) + 1e-3)
        self.assertGreaterEqual(metrics["kl_divergence"], 0)
        self.assertAlmostEqual(sum(metrics["level_contributions"].values()), 1, places=4)
        top = tracker.get_top_info_contributors(10)
        self.assertEqual(len(top), 10)
        self.assertEqual(top, sorted(top, key=lambda pair: -pair[1]))

    def test_modules(self):
        """The original's folders: what is imported from there is the same."""
        from clsplat.hsa import adaptation, factory, information_metrics, visualization
        self.assertIs(adaptation.AdaptationMonitor, AdaptationMonitor)
        self.assertIs(factory.create_preset_config, create_preset_config)
        self.assertIs(information_metrics.InformationMetricsTracker, InformationMetricsTracker)
        self.assertIs(visualization.HSAVisualizer, HSAVisualizer)

    @unittest.skipUnless(MODELS, "PyTorch and transformers 5 are not installed")
    def test_models(self):
        config = {"hierarchy": {"levels": ["Token", "Phrase"], "init_splats_per_level": [20, 5], "level_weights": [0.6, 0.4]}, "sparse_topk": 64,
                  "adaptation": {"enable_adaptation": True, "adaptation_frequency": 1, "mitosis_threshold": 0.1, "death_threshold": 0.01}}
        torch.manual_seed(0)
        ids = torch.randint(0, 50, (1, 96))
        bert = tr.BertModel(tr.BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)).eval()
        want = bert(ids).last_hidden_state
        hsa_model = replace_attention_with_hsa(bert, config)
        self.assertLess(((hsa_model(ids).last_hidden_state - want).norm() / want.norm()).item(), 0.05)
        self.assertLess(clsplat.report_of(hsa_model)["exact_share"], 0.9)  # counted where gradients are on, too
        with torch.no_grad():
            monitor = AdaptationMonitor()
            replace_attention_with_hsa(bert, {**config, "method": "splats"})(ids)
        self.assertGreater(monitor.get_adaptation_stats()["total_cycles"], 0)
        with self.assertRaisesRegex(clsplat.InvalidError, "no splats here"):
            clsplat.hsa.splats_of(replace_attention_with_hsa(bert, config))
        made = create_hsa_transformer(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, hsa_config=config)
        with torch.no_grad():
            self.assertEqual(made.eval()(ids).last_hidden_state.shape, (1, 96, 32))


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    wrong = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - wrong - len(result.skipped)} passed, {wrong} failed, {len(result.skipped)} skipped")
    sys.exit(wrong > 0)
