"""test_python.py: bench/examples/gradsieve.py. Its structures are the header's, two ranks by hand agree, errors are exceptions.

Needs libgradsieve.so (GS_LIBRARY_DIR) and a C compiler (CC, default cc); libgradsieve_cuda.so and a device for one test.
"""
import array
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "examples"))

import gradsieve  # noqa: E402

COUNT = 10000
NANS = array.array("f", [float("nan")]) * COUNT


def members_in_header(name):
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "include" / "gradsieve.h").read_text(), flags=re.DOTALL)
    members = re.search(r"\{([^{}]*)\}\s*" + name + ";", header).group(1).split(";")[:-1]
    return [re.search(r"\(\*(\w+)\)|(\w+)$", member)[0].strip("(*)") for member in members]


def layout_in_python(structure):
    yield ctypes.sizeof(structure)
    for name, _ in structure._fields_:
        yield getattr(structure, name).offset
        yield getattr(structure, name).size


def layout_in_c(structure, name, folder):
    """Size, and offset and size of every member, as the compiler has them."""
    members = "".join(f", offsetof({name}, {m}), sizeof((({name} *)0)->{m})" for m, _ in structure._fields_)
    source = folder / (name + ".c")
    source.write_text(
        f"""#include <gradsieve.h>
        #include <stdio.h>
        int main(void)
        {{
            size_t layout[] = {{sizeof({name}){members}}};
            for (size_t i = 0; i < sizeof layout / sizeof *layout; i++)
                printf("%zu\\n", layout[i]);
            return 0;
        }}"""
    )
    program = str(folder / name)
    subprocess.run([os.environ.get("CC", "cc"), "-I", ROOT / "include", source, "-o", program], check=True)
    return [int(line) for line in subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()]


def gradient(rank, step):
    return array.array("f", ((i * 7 + rank * 13 + step * 31) % 101 - 50 for i in range(COUNT)))


def address(buffer):
    return buffer.buffer_info()[0]


class Host:
    """Memory of the processor."""

    cuda = False

    def __init__(self):
        self.blocks = []

    def allocate(self, size):
        self.blocks.append(ctypes.create_string_buffer(size + 16))
        return (ctypes.addressof(self.blocks[-1]) + 15) // 16 * 16

    def write(self, place, values):
        ctypes.memmove(place, address(values), 4 * COUNT)

    def read(self, place):
        return array.array("f", ctypes.string_at(place, 4 * COUNT))


class Device:
    """Memory of the current CUDA device. A copy waits for what is enqueued."""

    cuda = True

    def __init__(self):
        self.runtime = ctypes.CDLL("libcudart.so.13")
        self.call("cudaFree", None)

    def call(self, name, *arguments):
        result = getattr(self.runtime, name)(*arguments)
        if result:
            raise OSError(f"{name}: error {result}")

    def allocate(self, size):
        place = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(place), ctypes.c_size_t(size))
        return place.value

    def copy(self, to, source):
        from_either_to_either = 4  # cudaMemcpyDefault
        self.call(
            "cudaMemcpy", ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(4 * COUNT), from_either_to_either
        )

    def write(self, place, values):
        self.copy(place, address(values))

    def read(self, place):
        values = array.array("f", NANS)
        self.copy(address(values), place)
        return values


class TwoRanks:
    """Both ranks of a step in one process."""

    def __init__(self, recipe, memory=Host):
        self.memory = memory()
        self.reducers = [
            gradsieve.Reducer(recipe, COUNT, gradsieve.FLOAT32, rank, 2, cuda=memory.cuda) for rank in range(2)
        ]
        self.slot = self.reducers[0].slot_bytes
        self.records = self.memory.allocate(2 * self.slot)
        self.buffers = [self.memory.allocate(4 * COUNT) for _ in range(2)]

    def reduce(self, step, op=gradsieve.AVG):
        for rank, reducer in enumerate(self.reducers):
            self.memory.write(self.buffers[rank], gradient(rank, step))
            reducer.encode(self.buffers[rank], self.records + rank * self.slot)
        for rank, reducer in enumerate(self.reducers):
            reducer.decode(self.records, self.buffers[rank], op)
        return [self.memory.read(buffer) for buffer in self.buffers]


class Binding(unittest.TestCase):
    def assert_raises(self, result, words, call, *arguments):
        with self.assertRaisesRegex(gradsieve.Error, words) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.result, result)

    def test_structures_are_the_headers(self):
        with tempfile.TemporaryDirectory() as folder:
            for structure, name in ((gradsieve.ReducerConfig, "gsReducerConfig_t"), (gradsieve.Stats, "gsStats_t")):
                self.assertEqual([member for member, _ in structure._fields_], members_in_header(name))
                in_c = layout_in_c(structure, name, pathlib.Path(folder))
                self.assertEqual(list(layout_in_python(structure)), in_c, name)

    def test_identity_is_the_mean_or_the_sum(self):
        for op, factor in ((gradsieve.AVG, 0.5), (gradsieve.SUM, 1.0)):
            results = TwoRanks("identity").reduce(0, op)
            expected = array.array("f", (factor * (a + b) for a, b in zip(gradient(0, 0), gradient(1, 0))))
            self.assertEqual(results, [expected, expected])

    def test_ranks_agree_and_count(self):
        ranks = TwoRanks("threshold:density=0.05")
        for step in range(5):
            mine, others = ranks.reduce(step)
            self.assertEqual(mine, others)
        stats = ranks.reducers[0].stats()
        self.assertEqual((stats.calls, stats.compressed, stats.failed), (5, 5, 0))
        self.assertGreater(stats.payloadBytes, 0)
        self.assertEqual(stats.wireBytes, 5 * ranks.slot)

    def test_imported_state_goes_on(self):
        first, second = TwoRanks("threshold:density=0.05"), TwoRanks("threshold:density=0.05")
        for step in range(5):
            first.reduce(step)
        for one, other in zip(first.reducers, second.reducers):
            other.import_state(one.export_state())
        for step in range(5, 10):
            self.assertEqual(first.reduce(step), second.reduce(step))

    def test_a_device_has_the_same_bits(self):
        try:
            device = TwoRanks("threshold:density=0.05", Device)
        except (OSError, gradsieve.Error) as error:
            self.skipTest(f"no CUDA: {error}")
        host = TwoRanks("threshold:density=0.05")
        for step in range(5):
            self.assertEqual(device.reduce(step), host.reduce(step))
        for one, other in zip(device.reducers, host.reducers):
            self.assertEqual(one.export_state(), other.export_state())
        device.reducers[0].encode(device.buffers[0], device.records)
        device.reducers[0].encode(device.buffers[0], device.records + device.slot)
        device.reducers[0].decode(device.records, device.buffers[0])
        self.assert_raises(5, "rank 1's place names another rank", device.reducers[0].check)

    def test_errors_are_exceptions(self):
        self.assert_raises(2, "densty.*position 11", TwoRanks, "threshold:densty=0.01")
        self.assert_raises(1, "rank 2 of 2", gradsieve.Reducer, "identity", COUNT, gradsieve.FLOAT32, 2, 2)
        ranks = TwoRanks("threshold")
        reducer = ranks.reducers[0]
        self.assert_raises(3, "without the gsEncode", reducer.decode, ranks.records, ranks.buffers[0])
        self.assert_raises(1, "sendbuff is NULL", reducer.encode, None, ranks.records)
        state = reducer.export_state()
        state[-1] ^= 1
        self.assert_raises(6, "checksum", reducer.import_state, state)

    def test_a_damaged_record_is_an_exception(self):
        ranks = TwoRanks("threshold")
        ranks.reducers[0].encode(ranks.buffers[0], ranks.records)
        self.assert_raises(6, "rank 1's place", ranks.reducers[0].decode, ranks.records, ranks.buffers[0])

    def test_closed_is_closed(self):
        ranks = TwoRanks("threshold")
        reducer = ranks.reducers[0]
        reducer.close()
        reducer.close()
        self.assert_raises(1, "reducer is NULL", reducer.encode, ranks.buffers[0], ranks.records)


if __name__ == "__main__":
    unittest.main()
