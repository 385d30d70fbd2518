"""gradsieve in PyTorch: a communication hook of DistributedDataParallel.

    ddp = DistributedDataParallel(model)
    state = GradsieveState(ddp.module, "threshold:density=0.01")
    ddp.register_comm_hook(state, gradsieve_hook)
    ...                                                            # train as before
    checkpoint["gradsieve"] = state.state_dict()                   # what this rank still owes: save one on every rank

Every parameter has a reducer of its own, so nothing is lost or mixed up when DDP rebuilds its buckets after the first step;
a bucket's records travel in one all-gather while the backward pass goes on. All recipes that work in single stages can be
used (see gsEncode in gradsieve.h); with `dense`, or with GS_DISABLE=1, gradients are all-reduced as without the hook.

Tested on CPU tensors (gloo). CUDA tensors (NCCL) take the same road by PyTorch's documented rules: records are made on the
current stream, and decoded in the callback of the collective's future, on a stream that waits for it. It has not run on a GPU
yet. There, a call returns before its errors are known: call check() from time to time.
"""
import ctypes

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import gradsieve

DATATYPES = {
    torch.float16: gradsieve.FLOAT16,
    torch.float32: gradsieve.FLOAT32,
    torch.float64: gradsieve.FLOAT64,
    torch.bfloat16: gradsieve.BFLOAT16,
}


class GradsieveState:
    """The hook's state: a reducer for every parameter of `model` that is trained, made alike on all ranks."""

    def __init__(self, model, recipe, group=None, seed=0):
        self.group = group or dist.group.WORLD
        self.ranks = dist.get_world_size(self.group)
        self.reducers, self.names = {}, {}
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if not parameter.requires_grad:
                continue
            if parameter.dtype not in DATATYPES:
                raise TypeError(f"{name} is {parameter.dtype}; expected one of {list(DATATYPES)}")
            with torch.cuda.device_of(parameter):
                self.reducers[parameter] = gradsieve.Reducer(
                    recipe,
                    parameter.numel(),
                    DATATYPES[parameter.dtype],
                    dist.get_rank(self.group),
                    self.ranks,
                    seed=seed + i,
                    cpu_threads=torch.get_num_threads(),
                    cuda=parameter.is_cuda,
                )
            self.names[name] = self.reducers[parameter]

    def check(self):
        """Raises an error that was found on a GPU, where a call returns before its work is done. Synchronises."""
        for reducer in self.names.values():
            reducer.check()

    def scale(self, factor):
        """A GradScaler's loss scale that changed by this factor."""
        for parameter, reducer in self.reducers.items():
            reducer.scale(factor, _stream(parameter))

    def stats(self):
        """The sums of gsStats_t's counters over all reducers. Synchronises."""
        self.check()
        every = [(reducer.stats(), reducer.slot_bytes) for reducer in self.names.values()]
        counters = [name for name, kind in gradsieve.Stats._fields_ if kind is ctypes.c_uint64]
        totals = {name: sum(getattr(stats, name) for stats, _ in every) for name in counters}
        # The all-gather moves whole slots, whatever exchange= says.
        totals["wireBytes"] = (self.ranks - 1) * sum(stats.calls * slot for stats, slot in every)
        return totals

    def state_dict(self):
        """What this rank remembers of each parameter, by its name. Synchronises."""
        self.check()
        return {
            name: torch.frombuffer(reducer.export_state(), dtype=torch.uint8) for name, reducer in self.names.items()
        }

    def load_state_dict(self, states):
        if states.keys() != self.names.keys():
            raise KeyError(f"states of {sorted(states)}; expected {sorted(self.names)}")
        for name, state in states.items():
            self.names[name].import_state(ctypes.string_at(state.cpu().contiguous().data_ptr(), state.numel()))

    def close(self):
        """Frees the reducers; no more backward pass after it."""
        for reducer in self.names.values():
            reducer.close()


def _stream(tensor):
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None


def gradsieve_hook(state: GradsieveState, bucket: dist.GradBucket) -> torch.futures.Future:
    buffer, gradients = bucket.buffer(), bucket.gradients()
    reducers = [state.reducers[parameter] for parameter in bucket.parameters()]
    sizes = [reducer.slot_bytes for reducer in reducers]
    if not all(sizes):
        return allreduce_hook(state.group, bucket)

    record = torch.empty(sum(sizes), dtype=torch.uint8, device=buffer.device)
    records = torch.empty(state.ranks * record.numel(), dtype=torch.uint8, device=buffer.device)
    for reducer, gradient, slot in zip(reducers, gradients, record.split(sizes)):
        reducer.encode(gradient.data_ptr(), slot.data_ptr(), _stream(gradient))
    work = dist.all_gather_into_tensor(records, record, group=state.group, async_op=True)

    def decode(_):
        for reducer, gradient, slots in zip(reducers, gradients, records.view(state.ranks, -1).split(sizes, dim=1)):
            slots = slots.contiguous()
            reducer.decode(slots.data_ptr(), gradient.data_ptr(), gradsieve.AVG, _stream(gradient))
        return buffer

    return work.get_future().then(decode)
