"""test_pytorch.py: bench/examples/pytorch_hook.py on two gloo processes of the CPU.

Trains a small model with DistributedDataParallel. Lossless recipes give DDP's own result, sparse ones its loss; buckets may be
rebuilt; a job that is killed goes on from its checkpoint as if it had not been. Needs libgradsieve.so (GS_LIBRARY_DIR);
skipped (77) where there is no PyTorch.
"""
import os
import pathlib
import signal
import sys
import tempfile

try:
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from torch import nn
except ImportError as error:
    print(f"skipped: no PyTorch ({error})")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench" / "examples"))

from pytorch_hook import GradsieveState, gradsieve_hook  # noqa: E402

RANKS, STEPS, SAVED, KILLED = 2, 400, 100, 110
RECIPE = "threshold:density=0.01"
ONE_BUCKET_MB, SEVERAL_BUCKETS_MB = 100, 0.1


def check(true, text):
    if not true:
        raise AssertionError(text)


def close_to(a, b, dtype):
    return torch.allclose(a.double(), b.double(), rtol=0, atol=torch.finfo(dtype).eps)


def batch(seed, dtype, size=32):
    """Ten classes by the largest of ten inputs; a tenth of the labels is wrong, so that the loss has a floor."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 64, generator=draw)
    labels = torch.where(
        torch.rand(size, generator=draw) < 0.1, torch.randint(10, (size,), generator=draw), x[:, :10].argmax(1)
    )
    return x.to(dtype), labels


class Job:
    """A model, its optimizer and, with a recipe, the hook; alike on all ranks."""

    def __init__(self, recipe, bucket_mb=SEVERAL_BUCKETS_MB, dtype=torch.float32):
        torch.manual_seed(1)
        self.dtype, self.step, self.layouts = dtype, 0, {}
        self.model = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        ).to(dtype)
        self.ddp = nn.parallel.DistributedDataParallel(self.model, bucket_cap_mb=bucket_mb)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.state = None
        if recipe:
            self.state = GradsieveState(self.model, recipe)
            self.ddp.register_comm_hook(self, Job.hook)

    @staticmethod
    def hook(self, bucket):
        self.layouts.setdefault(self.step, []).append(bucket.buffer().numel())
        return gradsieve_hook(self.state, bucket)

    def loss(self, model, seed, size=32):
        x, labels = batch(seed, self.dtype, size)
        return nn.functional.cross_entropy(model(x), labels)

    def train(self, end):
        while self.step < end:
            self.optimizer.zero_grad()
            self.loss(self.ddp, 1000 + RANKS * self.step + dist.get_rank()).backward()
            self.optimizer.step()
            self.step += 1
        return self

    def test_loss(self):
        with torch.no_grad():
            return self.loss(self.model, 0, 4096).item()

    def parameters(self):
        """All of them in one vector, which every rank has to have."""
        mine = torch.cat([p.detach().flatten() for p in self.model.parameters()])
        others = torch.empty(RANKS * mine.numel(), dtype=self.dtype)
        dist.all_gather_into_tensor(others, mine)
        check(all(torch.equal(mine, other) for other in others.chunk(RANKS)), "ranks' parameters differ")
        return mine

    def save(self, file):
        parts = {"model": self.model, "optimizer": self.optimizer, "gradsieve": self.state}
        torch.save({"step": self.step, **{name: part.state_dict() for name, part in parts.items()}}, file)

    def load(self, file):
        checkpoint = torch.load(file)
        self.step = checkpoint["step"]
        for name, part in {"model": self.model, "optimizer": self.optimizer, "gradsieve": self.state}.items():
            part.load_state_dict(checkpoint[name])


# ---- what is checked, on every rank ----


def lossless_is_ddp():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        ddp, hooked = (Job(recipe, dtype=dtype).train(10).parameters() for recipe in (None, "identity"))
        check(close_to(ddp, hooked, dtype), f"identity, {dtype}: {(ddp - hooked).abs().max()} from DDP's parameters")
        check(Job(RECIPE, dtype=dtype).train(10).parameters().isfinite().all(), f"{RECIPE}, {dtype}: not finite")


def sparse_reaches_ddps_loss():
    job, ddp = Job(RECIPE).train(STEPS), Job(None).train(STEPS)
    loss, expected = job.test_loss(), ddp.test_loss()
    stats, dense = job.state.stats(), STEPS * 2 * (RANKS - 1) * 4 * ddp.parameters().numel() // RANKS
    check(abs(loss - expected) < 0.02 * expected, f"loss {loss}; DDP's is {expected}")
    check(stats["calls"] == stats["compressed"] == STEPS * len(list(job.model.parameters())), f"counted: {stats}")
    check(0 < stats["payloadBytes"] <= stats["wireBytes"] < dense / 15, f"bytes: {stats}, dense {dense}")
    if dist.get_rank() == 0:
        print(f"loss after {STEPS} steps: DDP {expected:.4f}, {RECIPE} {loss:.4f}")
        print(f"bytes of a rank: DDP {dense}, records {stats['payloadBytes']}, on the wire {stats['wireBytes']}")
    return job.parameters()


def buckets_do_not_matter():
    job = Job(RECIPE).train(5)
    check(len(job.layouts[0]) == 1 and len(job.layouts[1]) > 1, f"buckets were not rebuilt: {job.layouts}")
    check(torch.equal(job.parameters(), Job(RECIPE, ONE_BUCKET_MB).train(5).parameters()), "bucket sizes matter")


def loss_scales_do_not_matter():
    plain, scaled = Job(RECIPE).train(5), Job(RECIPE).train(5)
    scaled.state.scale(4.0)
    for job, factor in ((plain, 1), (scaled, 4)):
        job.optimizer.zero_grad()
        (factor * job.loss(job.ddp, dist.get_rank())).backward()
    for p, q in zip(plain.model.parameters(), scaled.model.parameters()):
        check(torch.equal(4 * p.grad, q.grad), "a scaled loss has another gradient")


def disabled_is_ddp():
    os.environ["GS_DISABLE"] = "1"
    job = Job(RECIPE)
    del os.environ["GS_DISABLE"]
    check(close_to(job.train(5).parameters(), Job(None).train(5).parameters(), job.dtype), "GS_DISABLE=1 is not DDP")
    check(job.state.stats()["calls"] == 0, "GS_DISABLE=1 compresses")


def refused(kind, words, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        check(words in str(error), f'"{error}" does not say "{words}"')
    else:
        check(False, f'no error that says "{words}"')


def errors_are_exceptions():
    model = nn.Linear(4, 4)
    refused(RuntimeError, "position 11", GradsieveState, model, "threshold:densty=0.01")
    refused(TypeError, "complex64", GradsieveState, nn.Linear(4, 4, dtype=torch.complex64), RECIPE)
    state, other = GradsieveState(model, RECIPE), GradsieveState(model, "topk")
    refused(KeyError, "expected ['bias', 'weight']", state.load_state_dict, {})
    refused(RuntimeError, "another recipe", state.load_state_dict, other.state_dict())
    job = Job("cdadam")
    refused(RuntimeError, "single stages", job.train, 1)
    state.close()
    state.close()
    refused(RuntimeError, "reducer is NULL", state.stats)


def is_killed(rank, folder):
    join(rank, folder / "killed")
    job = Job(RECIPE).train(SAVED)
    job.save(folder / f"checkpoint{rank}")
    job.train(KILLED)
    dist.barrier()
    os.kill(os.getpid(), signal.SIGKILL)


def goes_on(rank, folder):
    job = Job(RECIPE)
    job.load(folder / f"checkpoint{rank}")
    check(job.step == SAVED, f"the checkpoint is of step {job.step}; expected {SAVED}")
    return job.train(STEPS)


def checks(rank, folder):
    join(rank, folder / "checks")
    resumed = goes_on(rank, folder).parameters()
    whole = sparse_reaches_ddps_loss()
    check(torch.equal(resumed, whole), "a resumed job ends with other parameters than one that was never killed")
    lossless_is_ddp()
    buckets_do_not_matter()
    loss_scales_do_not_matter()
    disabled_is_ddp()
    errors_are_exceptions()
    dist.destroy_process_group()


# ---- processes ----


def join(rank, file):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            mp.spawn(is_killed, (folder,), nprocs=RANKS)
        except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:  # the second: a rank that lost its peer
            if not all((folder / f"checkpoint{rank}").exists() for rank in range(RANKS)):
                raise
            print(f"killed as planned: {str(error).strip().splitlines()[-1]}")
        mp.spawn(checks, (folder,), nprocs=RANKS)
    print("passed")


if __name__ == "__main__":
    main()
