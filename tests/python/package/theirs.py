#!/usr/bin/env python3
"""transformers' own test_eager_matches_sdpa_inference for Llama, Mistral, Qwen2, BERT and ViT, with clsplat in sdpa's place, tolerance 0.

    theirs.py [--sdpa] [FAMILY…]      --sdpa: PyTorch's, to see what it passes

The test comes with transformers' source distribution, of the installed version, which pip fetches; its models' small configurations are
given here. Skipped where pip finds none.
"""
import importlib
import subprocess
import sys
import tarfile
import tempfile
import types
import unittest
from pathlib import Path

try:
    import parameterized  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers as tr
    if int(tr.__version__.split(".")[0]) < 5:
        raise ImportError("transformers 5 is needed")
except ImportError as error:
    print(f"skipped: theirs: {error}")
    sys.exit(0)

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
DECODER = {**SIZE, "vocab_size": 99, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = ["Model", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
FAMILIES = {
    "Llama": (DECODER, HEADS),
    "Mistral": (DECODER, HEADS),
    "Qwen2": ({**DECODER, "use_sliding_window": True, "max_window_layers": 1}, HEADS),
    "Bert": ({**SIZE, "vocab_size": 99, "max_position_embeddings": 512, "type_vocab_size": 16, "is_decoder": False},
             ["Model", "LMHeadModel", "ForMaskedLM", "ForMultipleChoice", "ForNextSentencePrediction", "ForPreTraining", "ForQuestionAnswering",
              "ForSequenceClassification", "ForTokenClassification"]),
    "ViT": ({**SIZE, "image_size": 30, "patch_size": 2, "num_channels": 3, "encoder_stride": 2},
            ["Model", "ForImageClassification", "ForMaskedImageModeling"]),
}


def their_module(folder):
    """tests.test_modeling_common of the source distribution; of what it imports beside it, classes it only inherits from stay empty."""
    name = f"transformers=={tr.__version__}"
    run = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder,
                          name], capture_output=True, text=True)
    found = list(Path(folder).glob("transformers-*.tar.gz"))
    if run.returncode or not found:
        print(f"skipped: theirs: pip has no source distribution of {name} here")
        sys.exit(0)
    with tarfile.open(found[0]) as archive:
        wanted = [m for m in archive.getmembers() if m.isfile() and m.name.split("/")[1:2] == ["tests"] and ".." not in m.name]
        archive.extractall(folder, wanted)
    root = next(Path(folder).glob("transformers-*/tests")).parent
    sys.path.insert(0, str(root))
    for module, one in (("tests.exporters.test_export", "ExportTesterMixin"), ("tests.generation.test_utils", "GenerationTesterMixin")):
        package = module.rsplit(".", 1)[0]
        sys.modules[package] = types.ModuleType(package)
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], one, type(one, (), {}))
    return importlib.import_module("tests.test_modeling_common")


class Small:
    """What their test asks of a model_tester."""

    batch_size, seq_length, num_choices = 7, 7, 4

    def __init__(self, config, pictures):
        self.config, self.pictures = config, pictures
        if pictures:
            self.seq_length = (config.image_size // config.patch_size) ** 2 + 1
            self.num_masks = self.seq_length // 2
            self.mask_length = self.seq_length - 1

    def prepare_config_and_inputs_for_common(self):
        if self.pictures:
            return self.config, {"pixel_values": torch.rand(self.batch_size, 3, 30, 30)}
        return self.config, {"input_ids": torch.randint(3, 99, (self.batch_size, self.seq_length)),
                             "attention_mask": torch.ones(self.batch_size, self.seq_length, dtype=torch.long)}


def cases(theirs):
    """A test case of every family, with their tests of this one name."""
    names = [name for name in vars(theirs.ModelTesterMixin) if name.startswith("test_eager_matches_sdpa_inference")]
    result = []
    chosen = [name for name in FAMILIES if name in sys.argv] or FAMILIES
    for family in chosen:
        config, classes = FAMILIES[family]

        def prepare(self, config=config, family=family):
            self.model_tester = Small(getattr(tr, family + "Config")(**config), family == "ViT")
        body = {name: getattr(theirs.ModelTesterMixin, name) for name in names}
        body.update(setUp=prepare, has_attentions=True, all_model_classes=tuple(getattr(tr, family + c) for c in classes),
                    _prepare_for_class=theirs.ModelTesterMixin._prepare_for_class)
        result.append(type(family, (unittest.TestCase,), body))
    return result


def in_place_of_sdpa():
    import clsplat.transformers as ours
    calls = [0]

    def counted(*arguments, **options):
        calls[0] += 1
        return ours.attention(*arguments, **options)
    tr.AttentionInterface.register("sdpa", counted)
    tr.AttentionMaskInterface.register("sdpa", ours.mask)
    return calls


def main():
    tr.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        theirs = their_module(folder)
        calls = None if "--sdpa" in sys.argv else in_place_of_sdpa()
        suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in cases(theirs))
        result = unittest.TextTestRunner(stream=sys.stdout, warnings="ignore").run(suite)
    wrong = len(result.failures) + len(result.errors)
    if calls is not None:
        print(f"{calls[0]} attentions by clsplat")
        wrong += calls[0] == 0
    for _, why in result.skipped:
        print(f"skipped: theirs: {why}")
    print(f"{result.testsRun - wrong - len(result.skipped)} passed, {wrong} failed, {len(result.skipped)} skipped")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
