"""OpenCL devices: which there are, and one opened."""
from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import logging
import os
import sys
import threading
import weakref
from typing import Any, Callable, Generator, Iterator, Optional, Union

from . import _c
from ._library import INSTALL, functions
from .errors import OF_STATUS, CancelledError, Error, ForkedError, InvalidError, NoDeviceError, c_string

Progress = Union[None, bool, Callable[[float], Any]]

_STATUS = {value: name[len("CLSPLAT_"):] for name, value in vars(_c).items()
           if name[len("CLSPLAT_"):] in OF_STATUS and isinstance(value, int)}
_LEVELS = {_c.CLSPLAT_LOG_ERROR: logging.DEBUG, _c.CLSPLAT_LOG_WARNING: logging.WARNING, _c.CLSPLAT_LOG_INFO: logging.INFO}
_logger = logging.getLogger("clsplat")
_opened_in: Optional[int] = None  # the process that first opened a device


def _without_frame(error: BaseException) -> BaseException:
    """The exception without the frame that caught it, a generator's that goes on: who clears a traceback's frames would end it."""
    return error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)


class _Log:
    """The library's messages, gathered while it runs (by a generator, as in `_watcher`; max is C that calls `key`) and logged after the call."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, bytes]] = []
        self.raised: Optional[BaseException] = None
        waiting = self._gather(self.lines)
        next(waiting)
        self.callback = _c.clsplat_log_callback(functools.partial(max, key=waiting.send))

    def _gather(self, lines: list[tuple[int, bytes]]) -> Generator[int, Any, None]:
        level, itself = _c.CLSPLAT_LOG_INFO, weakref.ref(self)
        del self
        while True:
            try:
                while True:
                    value = yield 0
                    if isinstance(value, int):
                        level = value
                    elif value is not None:
                        lines.append((level, value))
            except GeneratorExit:
                return
            except BaseException as error:  # noqa: BLE001  flush raises it
                owner = itself()
                if owner is not None:
                    owner.raised = _without_frame(error)

    def flush(self) -> None:
        lines, raised = self.lines[:], self.raised
        self.lines.clear()
        self.raised = None
        for level, message in lines:
            # An error is about to be raised with the same words.
            _logger.log(_LEVELS.get(level, logging.INFO), "%s", message.decode(errors="replace"))
        if raised is not None:
            raise raised


def refuse_forked(pid: Optional[int]) -> None:
    """Raises ForkedError in a child of the process `pid`."""
    if pid is not None and pid != os.getpid():
        raise ForkedError("this process was forked from one that had opened an OpenCL device, whose driver's threads and memory do not "
                          "exist here. Use multiprocessing's \"spawn\" or \"forkserver\" (multiprocessing.set_start_method), or open "
                          "devices in the children only.")


class _Handle:
    """A library handle of C, which carries the words of the last error."""

    def __init__(self) -> None:
        global _opened_in
        refuse_forked(_opened_in)
        self.c = functions()
        self.pointer = ctypes.c_void_p()
        options = self.c.options_defaults()
        self.log = _Log()
        options.log = self.log.callback
        if self.c.create(options, ctypes.byref(self.pointer)) != 0:
            raise OF_STATUS["MEMORY"]("no memory for a library handle")
        _opened_in = os.getpid()

    def check(self, status: int) -> None:
        self.log.flush()
        if status != 0:
            words = self.c.last_error(self.pointer).decode(errors="replace")
            raise OF_STATUS.get(_STATUS.get(status, ""), Error)(words or self.c.status_text(status).decode())


@contextlib.contextmanager
def _environment_named() -> Iterator[None]:
    """Drivers that pip installed are found through VIRTUAL_ENV, which is not set where an environment's Python is called directly."""
    inside = sys.prefix != sys.base_prefix and "VIRTUAL_ENV" not in os.environ
    if inside:
        os.environ["VIRTUAL_ENV"] = sys.prefix
    try:
        yield
    finally:
        if inside:
            del os.environ["VIRTUAL_ENV"]


def _fields(struct: ctypes.Structure) -> dict[str, Any]:
    """A structure's fields as Python's values."""
    result: dict[str, Any] = {}
    for name, _ in struct._fields_:
        value = getattr(struct, name)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, ctypes.Structure):
            value = _fields(value)
        elif isinstance(value, ctypes.Array):
            value = list(value)
        result[name] = value
    return result


def devices() -> list[dict[str, Any]]:
    """Every OpenCL device of this machine; a device's place in the list is its index. Raises NoDeviceError if there is none."""
    handle = _Handle()
    listed, count = ctypes.POINTER(_c.clsplat_device_info)(), ctypes.c_size_t()
    try:
        with _environment_named():
            handle.check(handle.c.device_list(handle.pointer, ctypes.byref(listed), ctypes.byref(count)))
        return [_fields(listed[i]) for i in range(count.value)]
    except NoDeviceError as error:
        raise NoDeviceError(f"{error} {INSTALL}") from None
    finally:
        handle.c.device_list_free(ctypes.byref(listed))
        handle.c.destroy(ctypes.byref(handle.pointer))


class _Children:
    """What was made on a device and must end before it. Python's collector only says what is no longer used, at any time and on any
    thread; it ends before the device's next call, after what was made from it."""

    def __init__(self) -> None:
        self.ends: dict[int, tuple[Callable[[Any], None], ctypes.c_void_p, int]] = {}
        self.unused: list[int] = []

    def add(self, owner: Any, destroy: Callable[[Any], None], pointer: ctypes.c_void_p,
            parent: Optional[ctypes.c_void_p] = None) -> Callable[[], None]:
        self.ends[id(pointer)] = destroy, pointer, id(parent)
        return weakref.finalize(owner, self.unused.append, id(pointer))

    def bury(self) -> None:
        while self.unused:
            self._end(self.unused.pop())

    def bury_all(self) -> None:
        for key in list(self.ends):
            self._end(key)

    def _end(self, key: int) -> None:
        if key not in self.ends:
            return
        for child in [other for other, (_, _, parent) in self.ends.items() if parent == key]:
            self._end(child)
        destroy, pointer, _ = self.ends.pop(key)
        destroy(ctypes.byref(pointer))


def _close(c: Any, lib: ctypes.c_void_p, device: ctypes.c_void_p, children: _Children, pid: int) -> None:
    """Ends what is left of a device; in a forked child nothing of it may be touched."""
    if pid != os.getpid():
        return
    children.bury_all()
    c.device_close(ctypes.byref(device))
    c.destroy(ctypes.byref(lib))


class Device:
    """One opened OpenCL device.

    `which` is an index of `devices()`, a type ("cpu", "gpu"), or a part of a name; None asks CLSPLAT_DEVICE, and without that takes
    the best. Any thread may use it: calls follow each other, and other Python threads run meanwhile. Closed by `close()`, by the end of
    a `with`, or with its last reference.
    """

    def __init__(self, which: Union[None, int, str] = None) -> None:
        handle = _Handle()
        self.which = which
        self._lib, self._handle, self._c = handle, ctypes.c_void_p(), handle.c
        self._lock, self._pid, self._busy = threading.RLock(), os.getpid(), False
        self._children = _Children()
        self._progress: Optional[Callable[[float], Any]] = None
        self._raised: Optional[BaseException] = None
        self._finalizer = weakref.finalize(self, _close, self._c, handle.pointer, self._handle, self._children, self._pid)
        self._watch = _watcher(weakref.ref(self))
        self._calls_it = _calling(contextvars.Context().run)
        self._callback = ctypes.cast(self._calls_it, _c.clsplat_progress)
        name = None if which is None else c_string(str(which))
        try:
            with _environment_named():
                handle.check(self._c.device_open(handle.pointer, name, ctypes.byref(self._handle)))
        except NoDeviceError as error:
            raise NoDeviceError(f"{error} {INSTALL}") from None

    def _run(self, function: Callable[..., int], *arguments: Any, progress: Progress = None) -> None:
        """A call of C, which may be interrupted where its options are `_watched`; raises what it answers."""
        if self._pid != os.getpid():
            refuse_forked(self._pid)
        with self._lock:
            if not self._handle or self._busy:
                raise InvalidError("a progress callback uses its own device" if self._busy else "the device is closed")
            if self._children.unused:
                self._children.bury()
            with _shown(progress) as shown:
                self._progress, self._busy = shown, True
                try:
                    status = function(*arguments)
                finally:
                    self._progress, self._busy, raised, self._raised = None, False, self._raised, None
            if self._lib.log.lines or self._lib.log.raised:
                self._lib.log.flush()
            if status == 0 and raised is None:
                return
            if raised is not None:
                raise raised
            if status == _c.CLSPLAT_CANCELLED:  # Ctrl-C before a callback's first line
                raise KeyboardInterrupt
            self._lib.check(status)

    def _watched(self, options: ctypes.Structure) -> None:
        """Lets a call with these options be watched: `progress` calls the first argument, `progress_user`, with the second."""
        options.progress, options.progress_user = self._callback, id(self._watch)

    def _end(self, finalizer: Callable[[], None]) -> None:
        """Ends something of this device now."""
        with self._lock:
            finalizer()
            if self._pid == os.getpid():
                self._children.bury()

    @property
    def info(self) -> dict[str, Any]:
        """Platform, name, driver, limits and quirks."""
        self._run(lambda: 0)
        describe = self._c.device_describe
        return _fields(_c.clsplat_device_info.from_address(describe(self._handle)))

    @property
    def name(self) -> str:
        return self.info["name"]

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of device memory that the library holds: now, and at most since the device was opened."""
        self._run(lambda: 0)
        return _fields(self._c.device_memory(self._handle))

    def close(self) -> None:
        """Ends its splats and models, too."""
        with self._lock:
            self._finalizer()
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<clsplat.Device {self.name!r}>" if self._handle and self._pid == os.getpid() else "<clsplat.Device, closed>"


def _watcher(device: weakref.ref) -> Callable[[Optional[float]], bool]:
    """What C calls now and then as watch(done), whether to go on: looks for Ctrl-C, and tells the user's callback.

    Python runs its signal handlers where a function begins, and an exception that leaves a callback of C is lost. So this is no
    function: a generator waits inside its `try`, and C code alone leads there (Context.run, which calls its first argument with the
    second, and the generator's send).
    """
    def look() -> Generator[bool, Optional[float], None]:
        go_on, owner = True, None
        while True:
            try:
                while True:  # Python looks for signals where loops jump back, too: inside
                    done = yield go_on
                    owner = device()
                    go_on = owner is None or owner._raised is None
                    if owner is not None and go_on and owner._progress is not None and owner._progress(done) is False:
                        raise CancelledError("the progress callback returned False")
                    owner = None
            except GeneratorExit:
                return
            except BaseException as error:  # noqa: BLE001  the caller raises it
                go_on, owner = False, owner or device()
                if owner is not None:
                    owner._raised = _without_frame(error)
                owner = None
    waiting = look()
    next(waiting)
    return waiting.send


_calling = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.py_object, ctypes.c_double)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[float], None]]:
    from tqdm.auto import tqdm
    with tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        def show(done: float) -> None:
            bar.update(done - bar.n)
        yield show


class _Plain:
    """As contextlib.nullcontext, for Python's sake without a call."""

    def __init__(self, value: Optional[Callable[[float], Any]]) -> None:
        self.value = value

    def __enter__(self) -> Optional[Callable[[float], Any]]:
        return self.value

    def __exit__(self, *_: Any) -> None:
        pass


_NONE = _Plain(None)


def _shown(progress: Progress) -> Any:
    """None and False show nothing, True a bar of tqdm; else a function of the finished share, which stops the call by returning False."""
    if not progress:
        return _NONE
    return _bar() if progress is True else _Plain(progress)


_default: Optional[Device] = None
_default_lock = threading.Lock()


def default_device() -> Device:
    """The device of calls that name none: CLSPLAT_DEVICE, or the best; opened once."""
    global _default
    if _default is None or not _default._handle:
        with _default_lock:
            if _default is None or not _default._handle:
                _default = Device()
    return _default


def default_which() -> Union[None, int, str]:
    """What the default device was opened by, for a command that opens it itself; None if there is none yet."""
    opened = _default
    return opened.which if opened is not None and opened._handle else None


def set_default_device(device: Union[Device, int, str, None]) -> Device:
    """Makes a device that of calls that name none; opens it if it is not a Device yet."""
    global _default
    with _default_lock:
        _default = device if isinstance(device, Device) else Device(device)
        return _default
