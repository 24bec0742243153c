"""Pretrained models: text in; text, vectors or likelihoods out."""
from __future__ import annotations

import codecs
import ctypes
import math
import os
import time
from typing import Any, Iterable, Iterator, NamedTuple, Optional, Sequence, Union

import numpy

from . import _c
from .device import Device, Progress, _fields, default_device
from .errors import FileError, InvalidError, c_string
from .splats import choice

_DTYPES = {"f32": _c.CLSPLAT_F32, "f16": _c.CLSPLAT_F16, "bf16": _c.CLSPLAT_BF16}
_METHODS = {"exact": _c.CLSPLAT_MODEL_EXACT, "window": _c.CLSPLAT_MODEL_WINDOW, "near-far": _c.CLSPLAT_MODEL_NEAR_FAR,
            "topk": _c.CLSPLAT_MODEL_TOPK, "blocks": _c.CLSPLAT_MODEL_BLOCKS}
_POOLINGS = {"folder": _c.CLSPLAT_POOLING_FOLDER, "mean": _c.CLSPLAT_POOLING_MEAN, "cls": _c.CLSPLAT_POOLING_CLS,
             "last": _c.CLSPLAT_POOLING_LAST}
_PASS = 512  # tokens that are fed in one call, between which Ctrl-C is looked for


def attention_of(c: Any, method: Optional[str] = None, tolerance: Optional[float] = None, window: int = 0, sparse_topk: int = 0,
                 chunk: int = 0, measure_errors: bool = False) -> _c.clsplat_model_attention:
    """How layers attend. method: "exact", "near-far" (with tolerance), "window" (of so many keys), "topk", "blocks"; None: as tolerance
    and window say."""
    a = c.model_attention_defaults()
    a.method = choice("method", method or ("near-far" if tolerance else "window" if window else "exact"), _METHODS)
    if tolerance is not None:
        if tolerance and a.method != _c.CLSPLAT_MODEL_NEAR_FAR:
            raise InvalidError(f"tolerance is near and far's; method={method!r} has none")
        a.tolerance = tolerance
    if window:
        a.window = window
    a.sparse_topk, a.chunk, a.measure_errors = sparse_topk, chunk, measure_errors
    return a


def folder_of(name: Union[str, os.PathLike]) -> str:
    """A folder or file as it is; else the folder of a model of that name, which huggingface_hub has or downloads."""
    if os.path.exists(name):
        return os.fspath(name)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InvalidError(f"there is no folder {name}; with huggingface_hub installed it may be the name of a model") from None
    if str(name).count("/") > 1 or str(name).startswith((".", "/")):
        raise FileError(f"there is no folder {name}")
    return snapshot_download(os.fspath(name), allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"])


class Evaluation(NamedTuple):
    """How well a text is predicted."""

    bits_per_byte: float
    perplexity: float
    tokens: int  # scored: all but the first of each window
    exact_share: float  # of the keys that tokens may see, those attended one by one
    seconds: float


class Session:
    """One text in the making: the keys and values of its tokens. From Model.session."""

    def __init__(self, model: Model, capacity: int, attention: _c.clsplat_model_attention) -> None:
        self.model, self._device, self._c = model, model.device, model.device._c
        self._pointer = ctypes.c_void_p()
        self._finalizer = self._device._children.add(self, self._c.session_close, self._pointer, model._pointer)
        self._device._run(self._c.session_open, model._on(), capacity, attention, ctypes.byref(self._pointer))

    def _on(self) -> int:
        if not self._pointer:
            raise InvalidError("the session is closed")
        return self._pointer.value

    def feed(self, tokens: Sequence[int], logits: bool = False) -> Optional[numpy.ndarray]:
        """Reads the next tokens; returns logits [tokens, vocabulary] if they are asked for."""
        ids = numpy.ascontiguousarray(tokens, numpy.int32)
        result = numpy.empty((len(ids), self.model.info["vocabulary"]), numpy.float32) if logits else None
        for at in range(0, len(ids), _PASS):
            part = ids[at : at + _PASS]
            place = None if result is None else result[at:].ctypes.data
            self._device._run(self._c.session_feed, self._on(), part.ctypes.data, len(part), place)
        return result

    def score(self, tokens: Sequence[int]) -> numpy.ndarray:
        """Reads all tokens but the last; returns the log-likelihood of each that follows one, [tokens − 1]."""
        ids = numpy.ascontiguousarray(tokens, numpy.int32)
        result = numpy.empty(max(len(ids) - 1, 0), numpy.float32)
        for at in range(0, len(result), _PASS):
            count = min(_PASS, len(result) - at)
            self._device._run(self._c.session_score, self._on(), ids[at:].ctypes.data, ids[at + 1 :].ctypes.data, count,
                              result[at:].ctypes.data, None)
        return result

    def sample(self, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0) -> int:
        """Draws the next token, and does not feed it; temperature 0 takes the most probable."""
        token = ctypes.c_int32()
        how = _c.clsplat_sampling(temperature, top_k, top_p, seed)
        self._device._run(self._c.session_sample, self._on(), how, ctypes.byref(token))
        return token.value

    def logits(self) -> numpy.ndarray:
        """[vocabulary], after the last token."""
        result = numpy.empty(self.model.info["vocabulary"], numpy.float32)
        self._device._run(self._c.session_logits, self._on(), result.ctypes.data)
        return result

    def __len__(self) -> int:
        """Tokens read so far."""
        self._device._run(lambda: 0)
        return self._c.session_length(self._on())

    def rewind(self, length: int = 0) -> None:
        """Back to the first `length` tokens."""
        self._device._run(self._c.session_rewind, self._on(), length)

    @property
    def statistics(self) -> dict[str, Any]:
        """tokens, visible_keys, exact_keys (summed over tokens, layers and heads), bytes."""
        s = _c.clsplat_session_statistics()
        self._device._run(self._c.session_statistics_read, self._on(), ctypes.byref(s))
        return _fields(s)

    @property
    def errors(self) -> numpy.ndarray:
        """How far each layer is from exact attention, if the session measures it (measure_errors)."""
        result = numpy.empty(self.model.info["layers"], numpy.float64)
        self._device._run(self._c.session_errors, self._on(), result.ctypes.data)
        return result

    def close(self) -> None:
        self._device._end(self._finalizer)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Model:
    """A pretrained model on a device: a folder with config.json, weights and tokeniser, a .gguf file, or the name of a model where
    huggingface_hub is installed. Decoders of the Llama family generate and eval; encoders of the BERT family embed."""

    def __init__(self, folder: Union[str, os.PathLike], *, activations: str = "f32", cache: str = "f32", context: int = 0,
                 device: Optional[Device] = None, progress: Progress = None) -> None:
        self.device = device or default_device()
        self._c, self._pointer = self.device._c, ctypes.c_void_p()
        self._finalizer = self.device._children.add(self, self._c.model_close, self._pointer)
        options = self._c.model_options_defaults()
        options.activations, options.cache = choice("dtype", activations, _DTYPES), choice("dtype", cache, _DTYPES)
        options.context = context
        self.device._watched(options)
        self.device._run(self._c.model_open, self.device._handle, c_string(folder_of(folder)), options, ctypes.byref(self._pointer),
                         progress=progress)
        self.info = self._describe()

    def _on(self) -> int:
        if not self._pointer:
            raise InvalidError("the model is closed")
        return self._pointer.value

    def _describe(self) -> dict[str, Any]:
        info = _c.clsplat_model_info.from_address(self._c.model_describe(self._on()))
        result = _fields(info)
        result["ends"] = list((ctypes.c_int32 * info.end_count).from_address(info.ends)) if info.end_count else []
        del result["end_count"]
        return result

    def encode(self, text: Union[str, bytes], special: bool = True) -> list[int]:
        """Tokens of a text; `special` adds what the tokeniser puts around it."""
        raw = text.encode() if isinstance(text, str) else text
        tokens, count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()
        self.device._run(self._c.model_encode, self._on(), raw, len(raw), special, ctypes.byref(tokens), ctypes.byref(count))
        try:
            return tokens[: count.value]
        finally:
            self._c.model_free(tokens)

    def _text(self, function: Any, *arguments: Any) -> bytes:
        text, count = ctypes.c_void_p(), ctypes.c_size_t()
        self.device._run(function, self._on(), *arguments, ctypes.byref(text), ctypes.byref(count))
        try:
            return ctypes.string_at(text, count.value)
        finally:
            self._c.model_free(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        ids = numpy.ascontiguousarray(tokens, numpy.int32)
        return self._text(self._c.model_decode, ids.ctypes.data, len(ids)).decode(errors="replace")

    def session(self, capacity: int, **attention: Any) -> Session:
        """A text of up to `capacity` tokens; `attention`: see attention_of."""
        return Session(self, capacity, attention_of(self._c, **attention))

    def generate(self, prompt: str, max_tokens: int = 128, *, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
                 **attention: Any) -> Iterator[str]:
        """Goes on with a prompt; yields text as it comes. `attention` as in session: method=, tolerance=, window=, ….

            for piece in model.generate("Once", tolerance=0.05):
                print(piece, end="", flush=True)
        """
        tokens = self.encode(prompt)
        if not tokens:
            raise InvalidError("the prompt has no token, and this model none that begins a text")
        return self._pieces(tokens, max_tokens, (temperature, top_k, top_p, seed), attention)

    def _pieces(self, tokens: list[int], max_tokens: int, sampling: tuple, attention: dict) -> Iterator[str]:
        whole = codecs.getincrementaldecoder("utf-8")("replace")
        with self.session(len(tokens) + max_tokens, **attention) as session:
            session.feed(tokens)
            previous = tokens[-1]
            for _ in range(max_tokens):
                token = session.sample(*sampling)
                if token in self.info["ends"]:
                    break
                piece = whole.decode(self._text(self._c.model_decode_next, previous, token))
                if piece:
                    yield piece
                session.feed([token])
                previous = token
        rest = whole.decode(b"", True)
        if rest:
            yield rest

    def eval(self, text: Union[str, bytes], *, context: int = 0, **attention: Any) -> Evaluation:
        """How well the model predicts a text, in windows of `context` tokens (0: as many as the model was made for). The first token of a
        window is not scored, nor are its bytes counted."""
        tokens = self.encode(text, special=False)
        window = min(context or self.info["context"], len(tokens))
        if len(tokens) < 2:
            raise InvalidError(f"the text has {len(tokens)} tokens; the first of a window is not scored, so that it needs 2")
        nats = visible = exact = 0.0
        scored = counted = 0
        began = time.perf_counter()
        with self.session(window, **attention) as session:
            for at in range(0, len(tokens) - 1, window):
                part = tokens[at : at + window]
                if len(part) < 2:
                    break
                session.rewind(0)
                nats -= float(session.score(part).sum(dtype=numpy.float64))
                seen = session.statistics
                visible, exact = visible + seen["visible_keys"], exact + seen["exact_keys"]
                scored += len(part) - 1
                ids = numpy.asarray(part, numpy.int32)
                counted += sum(sign * len(self._text(self._c.model_decode, ids.ctypes.data, n)) for n, sign in ((len(part), 1), (1, -1)))
        seconds = time.perf_counter() - began
        return Evaluation(nats / math.log(2) / max(counted, 1), math.exp(min(nats / scored, 700)), scored, exact / max(visible, 1), seconds)

    def embed(self, texts: Union[str, Iterable[str]], *, pooling: str = "folder", normalise: bool = False, progress: Progress = None,
              **attention: Any) -> numpy.ndarray:
        """A vector for every text, [texts, hidden]; of one text [hidden]. By an encoder; `attention`: method=, tolerance=."""
        alone = isinstance(texts, str)
        raw = [t.encode() if isinstance(t, str) else bytes(t) for t in ([texts] if alone else texts)]
        listed = (_c.clsplat_text * max(len(raw), 1))(*[_c.clsplat_text(t, len(t)) for t in raw])
        how = self._c.embedding_defaults()
        how.pooling, how.normalise = choice("pooling", pooling, _POOLINGS), normalise
        how.attention = attention_of(self._c, **attention)
        self.device._watched(how)
        vectors = numpy.empty((len(raw), self.info["hidden"]), numpy.float32)
        if raw:
            self.device._run(self._c.model_embed, self._on(), how, listed, len(raw), vectors.ctypes.data, progress=progress)
        return vectors[0] if alone else vectors

    def read(self, tokens: Sequence[int], *, logits: bool = False, **attention: Any) -> numpy.ndarray:
        """What the last layer of an encoder makes of every token, [tokens, hidden], or the head's logits [tokens, vocabulary]."""
        ids = numpy.ascontiguousarray(tokens, numpy.int32)
        result = numpy.empty((len(ids), self.info["vocabulary" if logits else "hidden"]), numpy.float32)
        places = (None, result.ctypes.data) if logits else (result.ctypes.data, None)
        self.device._run(self._c.model_read, self._on(), attention_of(self._c, **attention), ids.ctypes.data, len(ids), *places)
        return result

    def close(self) -> None:
        """Sessions of the model are closed with it."""
        self.device._end(self._finalizer)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self._pointer:
            return "<clsplat.Model, closed>"
        return f"<clsplat.Model {self.info['family']}, {self.info['layers']} layers, {self.info['parameters']:,} parameters>"
