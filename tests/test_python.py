"""test_python.py: bench/examples/gradsieve.py. Its structures are the header's, two ranks by hand agree, errors are exceptions.

Needs libgradsieve.so (GS_LIBRARY_DIR) and a C compiler (CC, default cc).
"""
import array
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "examples"))

import gradsieve  # noqa: E402

COUNT = 10000
NANS = array.array("f", [float("nan")]) * COUNT


def layout_in_python(structure):
    yield ctypes.sizeof(structure)
    for name, _ in structure._fields_:
        yield getattr(structure, name).offset
        yield getattr(structure, name).size


def layout_in_c(structure, name, folder):
    """Size, and offset and size of every member, as the compiler has them. A member more would change the size."""
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


class TwoRanks:
    """Both ranks of a step in one process."""

    def __init__(self, recipe):
        self.reducers = [gradsieve.Reducer(recipe, COUNT, gradsieve.FLOAT32, rank, 2) for rank in range(2)]
        self.slot = self.reducers[0].slot_bytes
        self.storage = ctypes.create_string_buffer(2 * self.slot + 16)
        self.records = (ctypes.addressof(self.storage) + 15) // 16 * 16

    def reduce(self, step, op=gradsieve.AVG):
        gradients = [gradient(rank, step) for rank in range(2)]
        results = [array.array("f", NANS) for _ in range(2)]
        for rank, reducer in enumerate(self.reducers):
            reducer.encode(address(gradients[rank]), self.records + rank * self.slot)
        for rank, reducer in enumerate(self.reducers):
            reducer.decode(self.records, address(results[rank]), op)
        return results


class Binding(unittest.TestCase):
    def assert_raises(self, result, words, call, *arguments):
        with self.assertRaisesRegex(gradsieve.Error, words) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.result, result)

    def test_structures_are_the_headers(self):
        with tempfile.TemporaryDirectory() as folder:
            for structure, name in ((gradsieve.ReducerConfig, "gsReducerConfig_t"), (gradsieve.Stats, "gsStats_t")):
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

    def test_errors_are_exceptions(self):
        self.assert_raises(2, "densty.*position 11", TwoRanks, "threshold:densty=0.01")
        self.assert_raises(1, "rank 2 of 2", gradsieve.Reducer, "identity", COUNT, gradsieve.FLOAT32, 2, 2)
        ranks = TwoRanks("threshold")
        reducer = ranks.reducers[0]
        self.assert_raises(3, "without the gsEncode", reducer.decode, ranks.records, address(NANS))
        self.assert_raises(1, "sendbuff is NULL", reducer.encode, None, ranks.records)
        state = reducer.export_state()
        state[-1] ^= 1
        self.assert_raises(6, "checksum", reducer.import_state, state)

    def test_a_damaged_record_is_an_exception(self):
        ranks = TwoRanks("threshold")
        ranks.reducers[0].encode(address(gradient(0, 0)), ranks.records)
        self.assert_raises(6, "rank 1's place", ranks.reducers[0].decode, ranks.records, address(array.array("f", NANS)))

    def test_closed_is_closed(self):
        reducer = TwoRanks("threshold").reducers[0]
        reducer.close()
        reducer.close()
        self.assert_raises(1, "reducer is NULL", reducer.encode, address(NANS), 16)


if __name__ == "__main__":
    unittest.main()
