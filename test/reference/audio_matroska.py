"""WebM and Matroska files of sound alone, and MP3 within WAV, as FFmpeg writes and decodes them (PyAV):
test/fixtures/audio/matroska.safetensors. RIFX is written and read by libsndfile."""

import io

import av
import numpy as np
import soundfile
import torch
from audio_formats import clip
from common import Fixture, main

# Name, container, codec, rate, channels, seconds, options of the codec, options of the container.
FILES = [
    ('webm opus', 'webm', 'libopus', 48000, 1, 0.04, {'b': '32k'}, {}),
    ('webm opus stereo, live', 'webm', 'libopus', 48000, 2, 0.021, {'b': '48k'}, {'live': '1'}),
    ('mka opus', 'matroska', 'libopus', 48000, 1, 0.03, {'b': '24k'}, {}),
    ('mka vorbis', 'matroska', 'vorbis', 16000, 2, 0.1, {'strict': 'experimental'}, {}),
    ('mka flac', 'matroska', 'flac', 16000, 1, 0.1, {}, {}),
    ('mka mp3', 'matroska', 'libmp3lame', 16000, 1, 0.15, {'b': '32k'}, {}),
    ('mka pcm 16', 'matroska', 'pcm_s16le', 8000, 2, 0.05, {}, {}),
    ('mka pcm 24 big', 'matroska', 'pcm_s24be', 8000, 1, 0.03, {}, {}),
    ('mka float', 'matroska', 'pcm_f32le', 8000, 1, 0.03, {}, {}),
    ('wav mp3', 'wav', 'libmp3lame', 16000, 1, 0.15, {'b': '32k'}, {}),
]


def written(container, codec, rate, channels, samples, options, container_options):
    file = io.BytesIO()
    with av.open(file, 'w', format=container, options={'fflags': 'bitexact', **container_options}) as output:
        stream = output.add_stream(codec, rate=rate, options={'flags': 'bitexact', **options})
        stream.layout = 'mono' if channels == 1 else 'stereo'
        kind = stream.codec_context.codec.audio_formats[0].name
        resampler = av.AudioResampler(format=kind, layout=stream.layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T, np.float32), format='fltp', layout=stream.layout.name)
        frame.sample_rate = rate
        frame.pts = 0
        fifo = av.AudioFifo()
        for one in resampler.resample(frame) + resampler.resample(None):
            fifo.write(one)
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 512
        while True:
            part = fifo.read(size, partial=True)
            if part is None:
                break
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def decoded(data):
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        decoder = stream.codec_context
        if decoder.name == 'opus':
            # FFmpeg's own decoder is up to 0.15 off libopus, the reference of RFC 6716, on sounds of noise.
            decoder = av.CodecContext.create(av.Codec('libopus', 'r'))
            # As floats: its 16-bit samples are clipped softly.
            decoder.options = {'request_sample_fmt': 'flt'}
            decoder.extradata = stream.codec_context.extradata
            decoder.sample_rate = stream.rate
            decoder.layout = stream.codec_context.layout
        resampler = av.AudioResampler(format='fltp')
        frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
        parts = [one.to_ndarray() for frame in frames for one in resampler.resample(frame)]
        return np.concatenate(parts, 1), stream.rate


def build():
    fixture = Fixture()
    for name, container, codec, rate, channels, seconds, options, more in FILES:
        data = written(container, codec, rate, channels, clip(name, rate, seconds, channels), options, more)
        samples, at = decoded(data)
        kind = 'wav' if container == 'wav' else 'matroska'
        fixture.case(
            {'name': name, 'codec': codec, 'format': kind, 'sampleRate': at, 'channels': channels},
            file={'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)},
            out={'samples': torch.from_numpy(samples.astype(np.float32))},
        )
    for subtype, width in [('PCM_16', 2), ('PCM_24', 2), ('FLOAT', 1)]:
        file = io.BytesIO()
        soundfile.write(file, clip(subtype, 8000, 0.02, width), 8000, subtype, 'BIG', 'WAV')
        data = bytearray(file.getvalue())
        if b'PEAK' in data:
            stamp = data.index(b'PEAK') + 12
            data[stamp : stamp + 4] = bytes(4)
        samples, at = soundfile.read(io.BytesIO(data), dtype='float32', always_2d=True)
        fixture.case(
            {'name': f'rifx {subtype}', 'codec': subtype, 'format': 'wav', 'sampleRate': at, 'channels': width},
            file={'bytes': torch.frombuffer(data, dtype=torch.uint8)},
            out={'samples': torch.from_numpy(np.ascontiguousarray(samples.T))},
        )
    return fixture


if __name__ == '__main__':
    main({'audio/matroska': build})
