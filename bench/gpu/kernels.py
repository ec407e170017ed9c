"""Our kernels on the device against the CPU, called from Python: kernels.py load|parity|small|bench BUILD DEVICE."""

import itertools
import sys
from pathlib import Path

import attention
import decode
import snake
import torch
from measure import median_seconds, relative_error

# The largest relative error allowed between device and CPU: both sum in float32 (float64), in different orders.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# Whole 16-byte vectors, odd lengths, less than a warp, and rows longer than a block holds in registers.
SHAPES = [(5, 768), (3, 4096), (2, 3, 17), (7, 1), (40,), (2, 3001), (2, 20480), (600, 64), (0, 8)]
SMALL = [(3, 768), (5, 17), (2, 20480), (2, 4099), (300, 40)]


def composed(input, residual, weight, eps=1e-6):
    hidden = input + residual
    accurate = hidden.float()
    normed = accurate * torch.rsqrt(accurate.pow(2).mean(-1, keepdim=True) + eps)
    return (normed * weight).to(input.dtype), hidden


def fused_norm(input, residual, weight, eps=1e-6):
    hidden = input + residual
    return torch.nn.functional.rms_norm(hidden, weight.shape, weight, eps), hidden


def results(device, dtype, shape, with_residual, with_weight):
    """Outputs and gradients for inputs that are the same on every device."""
    generator = torch.Generator().manual_seed(1)

    def make(*sizes):
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(dtype).to(device).requires_grad_()

    input, residual, weight = make(*shape), make(*shape), make(shape[-1])
    cotangents = [make(*shape).detach(), make(*shape).detach()]
    residual, weight = residual if with_residual else None, weight if with_weight else None
    outputs = torch.ops.voxtorch.rms_norm_residual(input, residual, weight)
    leaves = [leaf for leaf in (input, residual, weight) if leaf is not None]
    return [*outputs, *torch.autograd.grad(outputs, leaves, cotangents)]


def load(device):
    table = torch._C._dispatch_dump('voxtorch::rms_norm_residual')
    keys = [line.split(':')[0] for line in table.splitlines() if 'registered at' in line and not line.startswith('debug')]
    print('rms_norm_residual has kernels for', ', '.join(keys))
    assert device == 'cpu' or 'CUDA' in keys, 'no CUDA kernel is registered'
    threads = torch.ops.voxtorch.parallel_threads()
    print(f'parallel_for in core runs on {threads} of {torch.get_num_threads()} threads')
    assert threads == torch.get_num_threads()


def small(device):
    for dtype, shape, flags in itertools.product(TOLERANCE, SMALL, ((False, False), (True, True))):
        results(device, dtype, shape, *flags)
    if device != 'cpu':
        torch.cuda.synchronize()
    print(f'{len(TOLERANCE) * len(SMALL) * 2} calls, forward and backward')


def parity(device):
    worst = dict.fromkeys(TOLERANCE, 0.0)
    cases = list(itertools.product(TOLERANCE, SHAPES, (False, True), (False, True)))
    for dtype, shape, with_residual, with_weight in cases:
        pairs = zip(
            results(device, dtype, shape, with_residual, with_weight),
            results('cpu', dtype, shape, with_residual, with_weight),
            strict=True,
        )
        error = max(relative_error(actual, expected) for actual, expected in pairs)
        worst[dtype] = max(worst[dtype], error)
        assert error <= TOLERANCE[dtype], f'{dtype} {shape} residual={with_residual} weight={with_weight}: {error:.2e}'
    for dtype, error in worst.items():
        print(f'{dtype}: {device} and cpu differ by at most {error:.2e} (allowed {TOLERANCE[dtype]:.0e})')

    def leaf(*sizes):
        return torch.randn(*sizes, dtype=torch.float64, device=device, requires_grad=True)

    inputs = (leaf(3, 2, 6), leaf(3, 2, 6), leaf(6))
    assert torch.autograd.gradcheck(torch.ops.voxtorch.rms_norm_residual, inputs)
    assert torch.autograd.gradgradcheck(torch.ops.voxtorch.rms_norm_residual, inputs)
    print('gradcheck and gradgradcheck in float64')
    torch.library.opcheck(torch.ops.voxtorch.rms_norm_residual.default, inputs)
    print('opcheck')
    again = [results(device, torch.float32, (600, 64), True, True) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True)), 'two runs differ'
    print('two runs give the same bits')
    if device == 'cpu':
        return
    x = torch.randn(64, 512, device=device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.ops.voxtorch.rms_norm_residual(x)  # warm-up before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output, _ = torch.ops.voxtorch.rms_norm_residual(x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    assert relative_error(output, composed(x, torch.zeros_like(x), torch.ones(512, device=device))[0]) < 1e-5
    print('captured in a CUDA graph and replayed')


def bench(device):
    shapes = [(512, 768), (4096, 1024), (4096, 4096), (16384, 4096)] if device != 'cpu' else [(512, 768), (1024, 2048)]
    repeats = 20 if device != 'cpu' else 7
    calls = (torch.ops.voxtorch.rms_norm_residual, composed, fused_norm)
    print('median µs: ours | plain operators | add, then rms_norm | GB/s of ours, counting each tensor once')
    for dtype, (rows, dim) in itertools.product((torch.bfloat16, torch.float32), shapes):
        x, r, gy, gh = (torch.randn(rows, dim, device=device).to(dtype) for _ in range(4))
        w = torch.ones(dim, device=device, dtype=dtype)
        forward = median_seconds(device, [lambda f=f: f(x, r, w) for f in calls], repeats)
        leaves = [x.requires_grad_(), r.requires_grad_(), w.requires_grad_()]
        graphs = [f(*leaves) for f in calls]
        backward = median_seconds(
            device,
            [lambda outputs=o: torch.autograd.grad(outputs, leaves, [gy, gh], retain_graph=True) for o in graphs],
            repeats,
        )
        size = 4 * rows * dim * x.element_size()  # forward: two read, two written; backward: three read, one written
        for name, seconds in (('forward', forward), ('backward', backward)):
            times = ' | '.join(f'{value * 1e6:9.1f}' for value in seconds)
            print(f'{str(dtype)[6:]:8} {rows:5} x {dim:4} {name:8} {times} | {size / seconds[0] / 1e9:7.0f}')


if __name__ == '__main__':
    _, mode, build, device = sys.argv
    torch.ops.load_library(str(Path(build) / 'libvoxtorch_core.so'))
    {'load': load, 'small': small, 'parity': parity, 'bench': bench}[mode](device)
    print('gated_position_attention')
    getattr(attention, mode)(device)
    print('anti_aliased_snake')
    getattr(snake, mode)(device)
    print('decoding, window attention, 8-bit AdamW')
    getattr(decode, mode)(device)
