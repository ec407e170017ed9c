"""anti_aliased_snake, BigVGAN's activation, on the device against the CPU; kernels.py calls these."""

import itertools

import torch
from measure import median_seconds, relative_error

# Output, then gradients, of which those of the channels are sums over time. Both sides sum in float32 (float64), in different orders.
TOLERANCE = {
    torch.float32: (1e-5, 3e-5),
    torch.float64: (1e-12, 1e-11),
    torch.bfloat16: (1e-2, 3e-2),
    torch.float16: (2e-3, 6e-3),
}
# Batch, channels, time: shorter than a filter, around a block's steps, many rows, and the lengths of BigVGAN's stages.
SHAPES = [(1, 3, 1), (2, 2, 7), (1, 5, 17), (1, 2, 509), (2, 3, 512), (1, 2, 515), (1, 1, 20000), (2, 384, 100), (1, 24, 5000)]
SMALL = [(2, 3, 1), (1, 3, 130), (2, 2, 1027)]
# The filter of the original: a sinc that cuts at a quarter of the rate under a Kaiser window, 12 taps.
HALF = [0.00202897, 0.00938946, -0.02554346, -0.05765738, 0.12857261, 0.4432098]


def snake(*args):
    return torch.ops.voxtorch.anti_aliased_snake(*args)


def composed(x, frequency, magnitude, up, down):
    """As NVIDIA's code does it: doubled in rate, activated, halved."""
    channels = x.shape[1]
    padded = torch.nn.functional.pad(x, (5, 5), mode='replicate')
    up, down = (taps.to(x.dtype).view(1, 1, -1).expand(channels, -1, -1) for taps in (up, down))
    doubled = 2 * torch.nn.functional.conv_transpose1d(padded, up, stride=2, groups=channels)[..., 15:-15]
    activated = doubled + magnitude[:, None] * (doubled * frequency[:, None]).sin().square()
    padded = torch.nn.functional.pad(activated, (5, 6), mode='replicate')
    return torch.nn.functional.conv1d(padded, down, stride=2, groups=channels)


def inputs(device, dtype, shape):
    generator = torch.Generator().manual_seed(1)

    def make(*sizes):
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    leaves = [make(*shape), make(shape[1]).exp(), make(shape[1]).exp()]
    taps = torch.tensor(HALF + HALF[::-1], dtype=torch.float64).to(dtype).to(device)
    return [x.to(dtype).to(device).requires_grad_() for x in leaves], [taps, taps], make(*shape).to(dtype).to(device)


def results(device, dtype, shape):
    leaves, taps, cotangent = inputs(device, dtype, shape)
    output = snake(*leaves, *taps)
    return [output, *torch.autograd.grad(output, leaves, cotangent)]


def load(device):
    for name in ('anti_aliased_snake', 'anti_aliased_snake_backward'):
        table = torch._C._dispatch_dump(f'voxtorch::{name}')
        assert device == 'cpu' or any(line.startswith('CUDA') for line in table.splitlines()), f'no CUDA kernel of {name}'


def small(device):
    cases = list(itertools.product(TOLERANCE, SMALL))
    for dtype, shape in cases:
        results(device, dtype, shape)
    if device != 'cpu':
        torch.cuda.synchronize()
    print(f'{len(cases)} calls, forward and backward')


def parity(device):
    worst = {dtype: [0.0, 0.0] for dtype in TOLERANCE}
    for dtype, shape in itertools.product(TOLERANCE, SHAPES):
        actual, expected = results(device, dtype, shape), results('cpu', dtype, shape)
        errors = [relative_error(a, b) for a, b in zip(actual, expected, strict=True)]
        for side, error in enumerate((errors[0], max(errors[1:]))):
            worst[dtype][side] = max(worst[dtype][side], error)
            assert error <= TOLERANCE[dtype][side], f'{dtype} {shape}: {", ".join(f"{e:.1e}" for e in errors)}'
    for dtype, (output, gradient) in worst.items():
        print(f'{dtype}: {device} and cpu differ by at most {output:.2e}, gradients {gradient:.2e}')
    for shape in SHAPES:
        leaves, taps, _ = inputs(device, torch.float64, shape)
        assert relative_error(snake(*leaves, *taps), composed(*leaves, *taps)) < 1e-12, shape
    print('plain operators give the same')

    leaves, taps, _ = inputs(device, torch.float64, (2, 2, 7))
    assert torch.autograd.gradcheck(lambda *xs: snake(*xs, *taps), leaves)
    assert torch.autograd.gradgradcheck(lambda *xs: snake(*xs, *taps), leaves)
    print('gradcheck and gradgradcheck in float64')
    # Its CPU twin reads sizes as numbers: nothing here is traced with unknown ones.
    checks = ('test_schema', 'test_autograd_registration')
    torch.library.opcheck(torch.ops.voxtorch.anti_aliased_snake.default, (*leaves, *taps), test_utils=checks)
    print('opcheck')
    again = [results(device, torch.float32, (2, 3, 515)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True)), 'two runs differ'
    print('two runs give the same bits')
    if device == 'cpu':
        return

    leaves, taps, _ = inputs(device, torch.float32, (1, 24, 2**20))
    leaves = [leaf.detach() for leaf in leaves]
    snake(*leaves, *taps)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    snake(*leaves, *taps)
    held = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(f'24 channels of 2^20 steps hold {held:.0f} MiB at most; the output is 96 MiB, the doubled signal would be 192 MiB')
    assert held < 144

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        snake(*leaves, *taps)  # warm-up before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = snake(*leaves, *taps)
    leaves[0].copy_(torch.randn_like(leaves[0]))
    graph.replay()
    assert relative_error(output, snake(*leaves, *taps)) == 0
    print('captured in a CUDA graph and replayed')


def bench(device):
    # What five seconds pass through in BigVGAN, first and last stage.
    shapes = [(1, 768, 1720), (1, 96, 27520), (1, 24, 110080)] if device != 'cpu' else [(1, 24, 27520)]
    repeats = 20 if device != 'cpu' else 5
    print('median µs: ours | plain operators')
    for dtype, shape in itertools.product((torch.bfloat16, torch.float32), shapes):
        leaves, taps, cotangent = inputs(device, dtype, shape)

        def forward(run, leaves=leaves, taps=taps):
            with torch.no_grad():
                run(*leaves, *taps)

        def both(run, leaves=leaves, taps=taps, cotangent=cotangent):
            torch.autograd.grad(run(*leaves, *taps), leaves, cotangent)

        for name, work in (('forward', forward), ('both', both)):
            ours, theirs = median_seconds(device, [lambda r=r, w=work: w(r) for r in (snake, composed)], repeats)
            print(f'{str(dtype)[6:]:8} {shape} {name:8} {ours * 1e6:9.1f} | {theirs * 1e6:9.1f} | {ours / theirs:.2f}')
