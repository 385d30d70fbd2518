"""gradsieve by ctypes: reducers whose records the caller moves, over any transport that Python has.

    reducer = gradsieve.Reducer("threshold:density=0.01", count, gradsieve.FLOAT32, rank, ranks)
    reducer.encode(gradient, record)     # addresses: `count` elements, and reducer.slot_bytes bytes, aligned to 16
    ...                                  # all ranks' records, in rank order: records
    reducer.decode(records, gradient)    # their mean

Buffers live in host memory or, with cuda=True, on the current device. Needs Python 3.9 and libgradsieve.so, in the folder
GS_LIBRARY_DIR or where the loader finds it. Names and rules are those of gradsieve.h.
"""
import ctypes
import functools
import os
import weakref
from ctypes import c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

VERSION = 100  # GS_VERSION_CODE of the header that the structures below are those of; the library refuses another
FLOAT16, FLOAT32, FLOAT64, BFLOAT16 = 6, 7, 8, 9
SUM, AVG = 0, 4


class Error(RuntimeError):
    """A call has failed; `result` is the gsResult_t."""

    def __init__(self, result, text):
        super().__init__(text)
        self.result = result


class ReducerConfig(ctypes.Structure):
    """gsReducerConfig_t."""

    _fields_ = [
        ("size", c_size_t),
        ("version", c_uint32),
        ("datatype", c_int),
        ("recipe", c_char_p),
        ("count", c_uint64),
        ("seed", c_uint64),
        ("cpuThreads", c_int32),
        ("collective", c_int32),
        ("segments", ctypes.POINTER(c_uint64)),
        ("segmentCount", c_uint32),
        ("reserved2", c_uint32),
        ("wholeBelow", c_uint64),
        ("allocate", c_void_p),
        ("release", c_void_p),
        ("allocatorContext", c_void_p),
    ]


class Stats(ctypes.Structure):
    """gsStats_t."""

    _fields_ = [
        ("calls", c_uint64),
        ("compressed", c_uint64),
        ("dense", c_uint64),
        ("bypassed", c_uint64),
        ("nonFinite", c_uint64),
        ("thinned", c_uint64),
        ("overflowed", c_uint64),
        ("skipped", c_uint64),
        ("denseRounds", c_uint64),
        ("failed", c_uint64),
        ("lastKept", c_uint64),
        ("lastSent", c_uint64),
        ("lastExact", c_uint64),
        ("keptTotal", c_uint64),
        ("sentTotal", c_uint64),
        ("payloadBytes", c_uint64),
        ("wireBytes", c_uint64),
        ("nodeBytes", c_uint64),
        ("encodeSeconds", c_double),
        ("exchangeSeconds", c_double),
        ("decodeSeconds", c_double),
        ("serverSent", c_uint64),
        ("lastServerSent", c_uint64),
        ("normalized", c_double),
        ("tau", c_float),
        ("reference", c_uint32),
    ]


_HANDLE, _PLACE = c_void_p, ctypes.POINTER(c_void_p)
_PROTOTYPES = {
    "gsCommInitStages": (_PLACE, c_int, c_int, c_void_p),
    "gsCommInitStagesCuda": (_PLACE, c_int, c_int, c_void_p),
    "gsCommDestroy": (_HANDLE,),
    "gsReducerCreate": (_PLACE, _HANDLE, ctypes.POINTER(ReducerConfig)),
    "gsReducerDestroy": (_HANDLE,),
    "gsReducerGetSlotBytes": (_HANDLE, ctypes.POINTER(c_size_t)),
    "gsReducerGetAsyncError": (_HANDLE, ctypes.POINTER(c_int)),
    "gsReducerGetStats": (_HANDLE, ctypes.POINTER(Stats)),
    "gsReducerScale": (_HANDLE, c_float, c_void_p),
    "gsReducerExport": (_HANDLE, c_void_p, ctypes.POINTER(c_size_t)),
    "gsReducerImport": (_HANDLE, c_char_p, c_size_t),
    "gsEncode": (c_void_p, c_void_p, c_size_t, c_int, _HANDLE, c_void_p),
    "gsDecode": (c_void_p, c_void_p, c_size_t, c_int, c_int, _HANDLE, c_void_p),
}


@functools.lru_cache(maxsize=None)
def _library(name):
    return ctypes.CDLL(os.path.join(os.environ.get("GS_LIBRARY_DIR", ""), name + ".so.0"))


def _raise_on_error(result, *_):
    if result:
        last_error = _library("libgradsieve").gsGetLastError
        last_error.restype = c_char_p
        raise Error(result, last_error().decode())


@functools.lru_cache(maxsize=None)
def _function(name):
    library = _library("libgradsieve")  # first, for libgradsieve_cuda needs it
    function = getattr(_library("libgradsieve_cuda") if name.endswith("Cuda") else library, name)
    function.argtypes, function.errcheck = _PROTOTYPES[name], _raise_on_error
    return function


def _call(name, *arguments):
    _function(name)(*arguments)


def _destroy(reducer, comm):
    _call("gsReducerDestroy", reducer)
    _call("gsCommDestroy", comm)
    reducer.value = comm.value = None


class Reducer:
    """A reducer of one gradient, with a communicator of its own: different reducers may work in different threads.

    A gradient of fewer than 4096 elements travels whole, as a small tensor of a list does.
    """

    def __init__(self, recipe, count, datatype, rank, ranks, seed=0, cpu_threads=0, cuda=False):
        self.count, self.datatype = count, datatype
        self._comm, self._reducer = c_void_p(), c_void_p()
        config = ReducerConfig(
            size=ctypes.sizeof(ReducerConfig),
            version=VERSION,
            datatype=datatype,
            recipe=recipe.encode(),
            count=count,
            seed=seed,
            cpuThreads=cpu_threads,
            segments=(c_uint64 * 1)(count),
            segmentCount=1,
        )
        _call("gsCommInitStagesCuda" if cuda else "gsCommInitStages", self._comm, rank, ranks, None)
        self.close = weakref.finalize(self, _destroy, self._reducer, self._comm)  # once; at exit at the latest
        _call("gsReducerCreate", self._reducer, self._comm, config)
        slot_bytes = c_size_t()
        _call("gsReducerGetSlotBytes", self._reducer, slot_bytes)
        self.slot_bytes = slot_bytes.value  # 0: dense, by recipe or by GS_DISABLE; nothing to encode

    def encode(self, gradient, record, stream=None):
        """Writes this rank's record of this step."""
        _call("gsEncode", gradient, record, self.count, self.datatype, self._reducer, stream)

    def decode(self, records, result, op=AVG, stream=None):
        """Sums all ranks' records, in rank order, and commits this rank's state."""
        _call("gsDecode", records, result, self.count, self.datatype, op, self._reducer, stream)

    def check(self):
        """Raises what an enqueued call has met on a device. Synchronises."""
        result = c_int()
        _call("gsReducerGetAsyncError", self._reducer, result)
        _raise_on_error(result.value)

    def scale(self, factor, stream=None):
        """A loss scale that changed by this factor."""
        _call("gsReducerScale", self._reducer, factor, stream)

    def stats(self):
        stats = Stats()
        _call("gsReducerGetStats", self._reducer, stats)
        return stats

    def export_state(self):
        size = c_size_t()
        _call("gsReducerExport", self._reducer, None, size)
        state = bytearray(size.value)
        _call("gsReducerExport", self._reducer, (ctypes.c_char * len(state)).from_buffer(state), size)
        return state

    def import_state(self, state):
        _call("gsReducerImport", self._reducer, bytes(state), len(state))
