"""gated_position_attention on the device against the CPU; kernels.py calls these."""

import itertools

import torch
from measure import median_seconds, relative_error

# Output, then gradients. Both sides sum in float32 (float64), in different orders; the backward on CUDA subtracts what
# it makes from the output as rounded to its dtype, the one on the CPU does not.
TOLERANCE = {
    torch.float32: (1e-5, 3e-5),
    torch.float64: (1e-12, 1e-12),
    torch.bfloat16: (1e-2, 4e-2),
    torch.float16: (2e-3, 6e-3),
}
# Batch, heads, time, dim: less and more than a tile of 64 or 32, whole tiles, dims of either kernel.
SHAPES = [(2, 2, 7, 8), (2, 2, 17, 8), (1, 2, 64, 64), (3, 1, 65, 64), (1, 2, 33, 80), (1, 1, 96, 128), (2, 3, 249, 64)]
SMALL = [(1, 2, 70, 64), (2, 1, 40, 80)]


def attention(*args):
    return torch.ops.voxtorch.gated_position_attention(*args)


def composed(query, key, value, gate, relative):
    """As transformers does it, from relative expanded to [batch * heads, time, time]."""
    batch, heads, time, _ = query.shape
    bias = gate.reshape(batch * heads, time, 1) * relative
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.view(batch, heads, time, time)
    )


def inputs(device, dtype, shape, layout='beside'):
    generator = torch.Generator().manual_seed(1)

    def make(*sizes):
        return torch.randn(sizes, generator=generator, dtype=torch.float64).to(dtype).to(device)

    batch, heads, time, dim = shape
    if layout == 'beside':
        qkv = [make(batch, time, heads, dim).transpose(1, 2) for _ in range(4)]
    else:
        qkv = [make(batch, heads, dim, time).transpose(2, 3) for _ in range(4)]
    gate, relative = make(batch, heads, time) + 1, make(heads, 2 * time - 1)
    return [x.requires_grad_() for x in (*qkv[:3], gate, relative)], qkv[3]


def key_mask(device, shape, kind):
    if kind is None:
        return None
    mask = torch.rand(shape[0], shape[2], generator=torch.Generator().manual_seed(2)) > 0.4
    if kind == 'empty row':
        mask[0] = False
    return mask.to(device)


def results(device, dtype, shape, layout='beside', masked=None, dropout=0.0):
    leaves, cotangent = inputs(device, dtype, shape, layout)
    output = attention(*leaves, key_mask(device, shape, masked), dropout, 2**40 + 3)
    return [output, *torch.autograd.grad(output, leaves, cotangent)]


def load(device):
    table = torch._C._dispatch_dump('voxtorch::gated_position_attention_forward')
    assert device == 'cpu' or any(line.startswith('CUDA') for line in table.splitlines()), 'no CUDA kernel is registered'


def small(device):
    cases = list(itertools.product(TOLERANCE, SMALL, ((None, 0.0), ('empty row', 0.3))))
    for dtype, shape, (masked, dropout) in cases:
        results(device, dtype, shape, masked=masked, dropout=dropout)
    if device != 'cpu':
        torch.cuda.synchronize()
    print(f'{len(cases)} calls, forward and backward')


def parity(device):
    worst = {dtype: [0.0, 0.0] for dtype in TOLERANCE}
    cases = itertools.product(TOLERANCE, SHAPES, ('beside', 'transposed'), (None, 'holes', 'empty row'), (0.0, 0.3))
    for dtype, *case in cases:
        actual, expected = results(device, dtype, *case), results('cpu', dtype, *case)
        errors = [relative_error(a, b) for a, b in zip(actual, expected, strict=True)]
        for side, error in enumerate((errors[0], max(errors[1:]))):
            worst[dtype][side] = max(worst[dtype][side], error)
            assert error <= TOLERANCE[dtype][side], f'{dtype} {case}: {", ".join(f"{e:.1e}" for e in errors)}'
    for dtype, (output, gradient) in worst.items():
        print(f'{dtype}: {device} and cpu differ by at most {output:.2e}, gradients {gradient:.2e}')

    leaves, _ = inputs(device, torch.float64, (2, 2, 5, 3))
    options = (key_mask(device, (2, 2, 5, 3), 'holes'), 0.3, 4)
    assert torch.autograd.gradcheck(lambda *xs: attention(*xs, *options), leaves)
    assert torch.autograd.gradgradcheck(lambda *xs: attention(*xs, *options), leaves)
    print('gradcheck and gradgradcheck in float64')
    torch.library.opcheck(torch.ops.voxtorch.gated_position_attention.default, (*leaves, *options))
    print('opcheck')
    again = [results(device, torch.float32, (2, 3, 249, 64), dropout=0.1) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True)), 'two runs differ'
    print('two runs give the same bits')
    if device == 'cpu':
        return

    shape = (1, 8, 4000, 64)
    results(device, torch.bfloat16, shape)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results(device, torch.bfloat16, shape)
    held = (torch.cuda.max_memory_allocated() - before) / 2**20
    print(f'forward and backward of {shape} hold {held:.0f} MiB at most; one [heads, time, time] would be 488 MiB')
    assert held < 122

    # Composed of ATen's operators: the kernel has tiles for a dim of 128 at most.
    shape = (1, 1, 4, 129)
    pairs = zip(results(device, torch.float32, shape), results('cpu', torch.float32, shape), strict=True)
    assert max(relative_error(a, b) for a, b in pairs) < 3e-5

    leaves = [leaf.detach() for leaf in inputs(device, torch.float32, (2, 2, 100, 64))[0]]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        attention(*leaves)  # warm-up before the capture
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = attention(*leaves)
    leaves[0].copy_(torch.randn_like(leaves[0]))
    graph.replay()
    assert relative_error(output, attention(*[leaf.cpu() for leaf in leaves])) < 1e-5
    print('captured in a CUDA graph and replayed')


def bench(device):
    shapes = [(4, 12, 249, 64), (4, 12, 749, 64), (8, 16, 1499, 64)] if device != 'cpu' else [(4, 12, 249, 64)]
    repeats = 20 if device != 'cpu' else 5
    print('median µs: ours | as transformers composes it')
    for dtype, shape in itertools.product((torch.bfloat16, torch.float32), shapes):
        leaves, cotangent = inputs(device, dtype, shape)
        time = shape[2]
        expanded = leaves[4].detach().unfold(1, time, 1).flip(1).repeat(shape[0], 1, 1).requires_grad_()
        sides = ((attention, leaves), (composed, [*leaves[:4], expanded]))

        def forward(run, xs):
            with torch.no_grad():
                run(*xs)

        def both(run, xs, cotangent=cotangent):
            torch.autograd.grad(run(*xs), xs, cotangent)

        for name, work in (('forward', forward), ('both', both)):
            ours, theirs = median_seconds(device, [lambda s=s, w=work: w(*s) for s in sides], repeats)
            print(f'{str(dtype)[6:]:8} {shape} {name:8} {ours * 1e6:9.1f} | {theirs * 1e6:9.1f} | {ours / theirs:.2f}')
