"""What a decoding step, window attention and 8-bit AdamW are made of, on the device, against float64 in plain PyTorch; kernels.py
calls these."""

import itertools
import math
import statistics
import time

import torch
from measure import median_seconds, relative_error

# Four roundings of the dtype, counted from inputs that are rounded alike on both sides; float32 and float64 as everywhere.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1 / 64, torch.float16: 1 / 512}
OPERATORS = ['window_cross_attention_forward', 'few_rows_joined', 'rotary_append_', 'decode_attention', 'adamw_8bit_step_']


def maker(dtype, device, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def make(*sizes, scale=1.0):
        return (torch.randn(sizes, generator=generator, dtype=torch.float64) * scale).to(dtype).to(device)

    return make


def double(tensor):
    return None if tensor is None else tensor.detach().cpu().double()


# ---- window_cross_attention: query [batch, windows, queries, heads, dim], key and value [batch, time, heads, dim]


def windows(device, dtype, dim, window, stride, lengths, time=50):
    make = maker(dtype, device)
    leaves = [make(2, 3, 2, 4, dim), make(2, time, 4, dim), make(2, time, 4, dim)]
    cotangent = make(2, 3, 2, 4, dim)
    lengths = None if lengths is None else torch.tensor(lengths, device=device)

    def differentiated(xs, run, cotangent):
        xs = [x.requires_grad_() for x in xs]
        output = run(*xs)
        return [output, *torch.autograd.grad(output, xs, cotangent)]

    def reference(query, key, value):
        rows = []
        for b, w in itertools.product(range(2), range(3)):
            end = min(w * stride + window, time if lengths is None else int(lengths[b]))
            if end <= w * stride:
                rows.append(query[b, w] * 0)
                continue
            k, v = key[b, w * stride : end], value[b, w * stride : end]
            weights = torch.softmax(torch.einsum('qhd,jhd->qhj', query[b, w], k) / math.sqrt(dim), -1)
            rows.append(torch.einsum('qhj,jhd->qhd', weights, v))
        return torch.stack(rows).view(query.shape)

    def ours(*xs):
        return torch.ops.voxtorch.window_cross_attention(*xs, window, stride, lengths)

    expected = differentiated([double(x) for x in leaves], reference, double(cotangent))
    return list(zip(differentiated(leaves, ours, cotangent), expected, strict=True))


# ---- few_rows_joined


def dequantized(codes, scale, out, block):
    """What codes stand for, in float64, by the operators that read them on the CPU (the tests hold those to bitsandbytes)."""
    if block == 0:
        return codes.cpu().double() * scale.cpu().double().unsqueeze(-1) / 127
    shape = [out, 2 * codes.numel() // out]
    return torch.ops.voxtorch.dequantize_nf4(codes.cpu(), scale.cpu(), shape, block_size=block, dtype=torch.float64)


def joined(device, dtype, kind, rows, activation, lora, size=(256, 192)):
    make = maker(dtype, device)
    inner, out = size
    count = 2 if activation.endswith('_mul') else 3
    x = make(rows, inner)
    values = [make(out, inner, scale=inner**-0.5) for _ in range(count)]
    biases = [make(out) for _ in range(count)] if activation == 'none' else []
    lora_a = [make(8, inner, scale=inner**-0.5) for _ in range(count)] if lora else []
    lora_b = [make(out, 8) for _ in range(count)] if lora else []
    scales, blocks, weights, references = [], [], values, [double(v) for v in values]
    if kind == 'int8':
        scales = [v.float().abs().amax(1) for v in values]
        weights = [(v.float() * 127 / s.unsqueeze(1)).round().to(torch.int8) for v, s in zip(values, scales, strict=True)]
        blocks = [0] * count
    elif kind == 'nf4':
        packed = [torch.ops.voxtorch.quantize_nf4(v.float().cpu(), block_size=64) for v in values]
        weights, scales = [c.to(device) for c, _ in packed], [s.to(device) for _, s in packed]
        blocks = [64] * count
    if kind != 'values':
        references = [dequantized(w, s, out, b) for w, s, b in zip(weights, scales, blocks, strict=True)]
    args = (x, weights, scales, [out] * count, blocks, biases, lora_a, lora_b, [0.5] * count if lora else [], activation)
    parts = []
    for i, weight in enumerate(references):
        part = double(x) @ weight.T
        if biases:
            part += double(biases[i])
        if lora:
            part += 0.5 * (double(x) @ double(lora_a[i]).T) @ double(lora_b[i]).T
        parts.append(part)
    expected = torch.nn.functional.silu(parts[0]) * parts[1] if activation == 'silu_mul' else torch.cat(parts, -1)
    return args, expected


# ---- rotary_append_ and decode_attention, over one cache


def cache(device, dtype, rows=3, heads=8, kv_heads=2, capacity=70, dim=64, position=41):
    make = maker(dtype, device)
    keys, values = make(rows, kv_heads, capacity, dim), make(rows, kv_heads, capacity, dim)
    keys[:, :, position:], values[:, :, position:] = math.nan, math.nan  # nothing has been written there
    qkv = make(rows, (heads + 2 * kv_heads) * dim)
    angles = torch.arange(dim // 2, dtype=torch.float64) * 0.1 * position
    cos, sin = angles.cos().to(dtype).to(device), angles.sin().to(dtype).to(device)
    return qkv, cos, sin, keys, values, torch.tensor([position], device=device), heads


def rotary(device, dtype):
    qkv, cos, sin, keys, values, position, heads = cache(device, dtype)
    rows, kv_heads, _, dim = keys.shape
    split = double(qkv).view(rows, -1, dim)
    first, second = split[..., : dim // 2], split[..., dim // 2 :]
    turned = torch.cat([first * double(cos) - second * double(sin), second * double(cos) + first * double(sin)], -1)
    query = torch.ops.voxtorch.rotary_append_(qkv, cos, sin, keys, values, position, heads)
    at = int(position)
    return [
        (query.view(rows, heads, dim), turned[:, :heads]),
        (keys[:, :, at], turned[:, heads : heads + kv_heads]),
        (values[:, :, at], split[:, heads + kv_heads :]),
    ]


def decoded(device, dtype, window, masked):
    qkv, cos, sin, keys, values, position, heads = cache(device, dtype)
    query = torch.ops.voxtorch.rotary_append_(qkv, cos, sin, keys, values, position, heads)
    rows, kv_heads, _, dim = keys.shape
    query = query.view(rows, heads, dim)
    end = int(position) + 1
    first = max(0, end - window) if window else 0
    mask = None
    if masked:
        mask = torch.ones(rows, end, dtype=torch.bool, device=device)
        mask[0, : end - 5] = False
    output = torch.ops.voxtorch.decode_attention(query, keys, values, position, mask, window)
    k, v = (double(x)[:, :, first:end].repeat_interleave(heads // kv_heads, 1) for x in (keys, values))
    scores = torch.einsum('bhd,bhjd->bhj', double(query), k) / math.sqrt(dim)
    if mask is not None:
        scores = scores.masked_fill(~mask.cpu()[:, None, first:end], -math.inf)
    return output, torch.einsum('bhj,bhjd->bhd', scores.softmax(-1), v).flatten(1)


# ---- 8-bit AdamW over several parameters


def adamw_state(device, dtype, sizes):
    make = maker(dtype, 'cpu')
    params, grads = [make(n) for n in sizes], [make(n) for n in sizes]
    first, second, absmax1, absmax2 = [], [], [], []
    for n in sizes:
        for signed, codes, absmax in ((True, first, absmax1), (False, second, absmax2)):
            moments = torch.rand(n, generator=torch.Generator().manual_seed(n)) * (1e-2 if signed else 1e-4)
            code, scale = torch.ops.voxtorch.quantize_blockwise(moments, signed=signed)
            codes.append(code.view(n)), absmax.append(scale)
    steps = [torch.tensor(3.0) for _ in sizes]
    return [[x.to(device) for x in group] for group in (params, grads, first, second, absmax1, absmax2, steps)]


def adamw(device, dtype):
    sides = []
    for where in (device, 'cpu'):
        state = adamw_state(where, dtype, (4096, 5, 1000, 70_000))
        torch.ops.voxtorch.adamw_8bit_step_(*state, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01)
        sides.append(state)
    return [pair for group in (0, 2, 3, 4, 5) for pair in zip(sides[0][group], sides[1][group], strict=True)]


def available(name):
    return hasattr(torch.ops.voxtorch, name)


def load(device):
    for name in OPERATORS:
        assert available(name), f'there is no operator {name}'
        if device == 'cpu' or name == 'adamw_8bit_step_':  # which asks the device itself
            continue
        table = torch._C._dispatch_dump(f'voxtorch::{name}')
        assert any(line.startswith('CUDA') for line in table.splitlines()), f'no CUDA kernel is registered for {name}'
    print(', '.join(OPERATORS))


def cases(dtype):
    """(name, pairs) of results and what they should be."""
    for dim, window, stride, lengths in ((64, 17, 17, (50, 20)), (40, 5, 2, None), (33, 7, 11, (0, 60))):
        yield f'window_cross_attention {dim} {window} {stride}', lambda d, c=(dim, window, stride, lengths): windows(d, dtype, *c)
    # The quantised weights and few rows are for half precision and float32.
    kinds = ('values', 'int8', 'nf4') if dtype != torch.float64 else ('values',)
    for kind, rows, activation, lora in itertools.product(kinds, (1, 3, 8), ('none', 'silu_mul'), (False, True)):

        def run(d, c=(kind, rows, activation, lora)):
            args, expected = joined(d, dtype, *c)
            return [(torch.ops.voxtorch.few_rows_joined(*args), expected)]

        yield f'few_rows_joined {kind}, {rows} rows, {activation}, LoRA {lora}', run
    yield 'rotary_append_', lambda d: rotary(d, dtype)
    for window, masked in itertools.product((0, 7), (False, True)):
        yield f'decode_attention, window {window}, mask {masked}', lambda d, c=(window, masked): [decoded(d, dtype, *c)]


def small(device):
    count = 0
    for dtype in TOLERANCE:
        for _, run in cases(dtype):
            run(device)
            count += 1
    adamw(device, torch.bfloat16)
    if device != 'cpu':
        torch.cuda.synchronize()
    print(f'{count + 1} calls')


def parity(device):
    for dtype, tolerance in TOLERANCE.items():
        worst, where = 0.0, ''
        for name, run in cases(dtype):
            error = max(relative_error(actual, expected) for actual, expected in run(device))
            assert error <= tolerance, f'{dtype} {name}: off by {error:.2e}, allowed {tolerance:.1e}'
            if error >= worst:
                worst, where = error, name
        print(f'{dtype}: off by at most {worst:.2e} of float64 ({where}), allowed {tolerance:.1e}')
    for dtype in (torch.float32, torch.bfloat16):
        pairs = adamw(device, dtype)
        assert all(torch.equal(a.cpu(), b) for a, b in pairs), f'adamw_8bit_step_ in {dtype}: other bits than on the CPU'
    print('adamw_8bit_step_: the bits of the CPU')


def bench(device):
    half = torch.bfloat16
    shape, repeats = ((4096, 4096), 20) if device != 'cpu' else ((256, 192), 5)
    print('few_rows_joined, three projections of', shape, '- median µs and GB/s of the weights')
    for kind, rows in itertools.product(('values', 'int8', 'nf4'), (1, 8)):
        args, _ = joined(device, half, kind, rows, 'none', False, shape)
        (seconds,) = median_seconds(device, [lambda a=args: torch.ops.voxtorch.few_rows_joined(*a)], repeats)
        read = sum(w.numel() * w.element_size() for w in args[1])
        print(f'{kind:6} {rows} rows {seconds * 1e6:9.1f} | {read / seconds / 1e9:7.0f}')
    sizes = (4096 * 4096,) * 4 if device != 'cpu' else (4096,) * 4
    state = adamw_state(device, half, sizes)
    step = lambda: torch.ops.voxtorch.adamw_8bit_step_(*state, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01)
    (seconds,) = median_seconds(device, [step], repeats)
    print(f'adamw_8bit_step_ of {len(sizes)} parameters of {sizes[0]}: {seconds * 1e6:.1f} µs')
    growing(device)


def growing(device):
    """A cache that grows by one key: does attention pay for each new length (a plan of cuDNN)?"""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {'flash': SDPBackend.FLASH_ATTENTION, 'cuDNN': SDPBackend.CUDNN_ATTENTION, 'math': SDPBackend.MATH}
    for name, backend in backends.items():
        if device == 'cpu' and name == 'cuDNN':
            continue
        times = []
        try:
            for length in range(900, 932):
                make = maker(torch.bfloat16, device)
                query, key, value = make(1, 32, 1, 128), make(1, 32, length, 128), make(1, 32, length, 128)
                wait = torch.cuda.synchronize if device != 'cpu' else lambda: None
                wait()
                start = time.perf_counter()
                with sdpa_kernel(backend):
                    torch.nn.functional.scaled_dot_product_attention(query, key, value)
                wait()
                times.append(time.perf_counter() - start)
        except RuntimeError as error:
            print(f'SDPA by {name}: not here ({str(error).splitlines()[0]})')
            continue
        print(f'SDPA by {name}, a new key length each time: median {statistics.median(times[1:]) * 1e6:.0f} µs of wall time')
