"""What the checks of each kernel share."""

import statistics
import time

import torch


def relative_error(actual, expected):
    actual, expected = actual.double().cpu(), expected.double().cpu()
    if expected.numel() == 0:
        return 0.0 if actual.shape == expected.shape else float('inf')
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-3)).item()


def median_seconds(device, calls, repeats):
    """Interleaved, so that a slower moment hits all of them."""
    times = [[] for _ in calls]
    for call in calls:
        call()
        call()
    for _ in range(repeats):
        for index, call in enumerate(calls):
            if device == 'cpu':
                start = time.perf_counter()
                call()
                times[index].append(time.perf_counter() - start)
            else:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                for _ in range(10):
                    call()
                end.record()
                end.synchronize()
                times[index].append(start.elapsed_time(end) / 10_000)
    return [statistics.median(values) for values in times]
