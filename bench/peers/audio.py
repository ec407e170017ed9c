"""What torchaudio and transformers do, in plain PyTorch. Filters and windows are made once, outside the measured part.
Files are read by libsndfile (PyPI's soundfile)."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from rates import rates
from serve import serve, timed_blocks
from torch.nn.functional import conv1d, pad

torch.set_grad_enabled(False)


def resampler(source, target, width=6, rolloff=0.99):
    factor = math.gcd(source, target)
    source, target = source // factor, target // factor
    cutoff = min(source, target) * rolloff
    edge = math.ceil(width * source / cutoff)
    time = torch.arange(-edge, edge + source, dtype=torch.float64) / source
    phase = torch.arange(0, -target, -1, dtype=torch.float64) / target
    crossings = ((phase[:, None] + time) * cutoff).clamp(-width, width)
    window = torch.cos(crossings * math.pi / width / 2) ** 2
    kernel = (torch.sinc(crossings) * window * cutoff / source).float()[:, None]

    def resample(samples):
        out = conv1d(pad(samples[None], (edge, edge + source))[:, None], kernel, stride=source)
        return out.transpose(1, 2).reshape(1, -1)[0, : math.ceil(target * len(samples) / source)]

    return resample


def kaldi_mel(hertz):
    return 1127 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700)


def kaldi_filters(bands, size, rate):
    edges = torch.linspace(kaldi_mel(20.0).item(), kaldi_mel(rate / 2).item(), bands + 2, dtype=torch.float64)[:, None]
    bins = kaldi_mel(torch.arange(size // 2, dtype=torch.float64) * rate / size)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return pad(torch.minimum(rising, falling).clamp(min=0), (0, 1)).float().T.contiguous()


povey = torch.hann_window(400, periodic=False) ** 0.85
filters = kaldi_filters(128, 512, 16000)


def fbank(samples):
    frames = samples.as_strided((1 + (len(samples) - 400) // 160, 400), (160, 1))
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat((frames[:, :1], frames[:, :-1]), 1)
    power = torch.fft.rfft(frames * povey, 512).abs().square()
    return (power @ filters).clamp(min=torch.finfo(torch.float32).eps).log()


hann = torch.hann_window(400)
mel = torch.rand(80, 201) * (torch.rand(80, 201) < 0.03)


def log_mel(samples):
    spectrum = torch.stft(samples, 400, 160, window=hann, return_complex=True)
    power = spectrum[:, :-1].abs().square()
    logs = (mel @ power).clamp(min=1e-10).log10()
    return (torch.maximum(logs, logs.max() - 8) + 4) / 4


minute44, minute16, half = torch.randn(60 * 44100), torch.randn(60 * 16000), torch.randn(480000)
down, up = resampler(44100, 16000), resampler(16000, 22050)


FOLDER = os.environ["VOXTORCH_BENCH_FILES"]
pool = ThreadPoolExecutor(os.cpu_count())


def read(name):
    import soundfile  # not needed for the other cases

    return soundfile.read(os.path.join(FOLDER, name), dtype="float32")[0]


def read_many():
    return list(pool.map(read, ["speech.flac"] * 8))


def repeat(work):
    def run(n):
        for _ in range(n):
            work()

    return run


serve(
    timed_blocks(
        {
            "resample": repeat(lambda: down(minute44)),
            "resampleUp": repeat(lambda: up(minute16)),
            "fbank": repeat(lambda: fbank(minute16)),
            "logMel": repeat(lambda: log_mel(half)),
            "readWAV": repeat(lambda: read("speech.wav")),
            "readFLAC": repeat(lambda: read("speech.flac")),
            "readMP3": repeat(lambda: read("speech.mp3")),
            "readVorbis": repeat(lambda: read("speech.ogg")),
            "readOpus": repeat(lambda: read("speech.opus")),
            "readMany": repeat(read_many),
            **rates,
        }
    )
)
