"""Audio files of every container and codec that is read, as libsndfile writes them, with the samples that it reads back.

Needs only soundfile of requirements.txt. libsndfile's decoders are libFLAC, libvorbis, libopus and mpg123.
"""

import io

import numpy as np
import soundfile
import torch
from common import Fixture, coarse, main, randn


def clip(name, rate, seconds, channels):
    """Rising tones, one octave apart, with noise and a click: blocks of every length."""
    count = int(rate * seconds)
    time = np.arange(count) / rate
    noise = randn(f'{name}-{rate}-{channels}', channels, count, scale=0.05).numpy()
    tones = np.stack([np.sin(2 * np.pi * (100 * 2**i + 900 * time) * time) for i in range(channels)])
    samples = 0.4 * tones + noise
    samples[:, count // 2 : count // 2 + 8] += 0.4
    return coarse(torch.from_numpy(np.clip(samples, -0.99, 0.99))).numpy().T


def places(rate, seconds, channels):
    """A tone so low that every channel keeps it, louder from channel to channel: who is where."""
    time = np.arange(int(rate * seconds)) / rate
    return np.stack([(0.1 + 0.08 * i) * np.sin(2 * np.pi * 60 * time + i) for i in range(channels)], 1)


def written(samples, rate, container, subtype, endian='FILE', level=None):
    file = io.BytesIO()
    keywords = {'samplerate': rate, 'channels': samples.shape[1], 'format': container, 'subtype': subtype, 'endian': endian}
    with soundfile.SoundFile(file, 'w', **keywords, **({} if level is None else {'compression_level': level})) as output:
        output.write(samples)
    data = bytearray(file.getvalue())
    if container == 'OGG':
        with_fixed_serial(data)
    elif b'PEAK' in data:
        stamp = data.index(b'PEAK') + 12
        data[stamp : stamp + 4] = bytes(4)
    elif b'peak' in data:
        stamp = data.index(b'peak') + 16
        data[stamp : stamp + 4] = bytes(4)
    return bytes(data)


def with_fixed_serial(data):
    """Gives an Ogg stream the serial number 1 instead of a random one, and its pages the checksums of that."""
    at = 0
    while at < len(data):
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        data[at + 14 : at + 18] = (1).to_bytes(4, 'little')
        data[at + 22 : at + 26] = bytes(4)
        checksum = 0
        for byte in data[at:end]:
            checksum ^= byte << 24
            for _ in range(8):
                checksum = (checksum << 1) ^ (0x104C11DB7 if checksum & 0x80000000 else 0)
        data[at + 22 : at + 26] = checksum.to_bytes(4, 'little')
        at = end


def add(fixture, name, kind, data):
    samples, rate = soundfile.read(io.BytesIO(data), dtype='float32', always_2d=True)
    fixture.case(
        {'name': name, 'sampleRate': rate, 'format': kind, 'channels': samples.shape[1]},
        file={'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)},
        out={'samples': torch.from_numpy(samples.T.copy())},
    )


def containers():
    fixture = Fixture()
    plain = ['PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'ALAW']
    cases = [
        *(('AIFF', subtype, 'FILE') for subtype in ['PCM_S8', 'PCM_U8', *plain, 'IMA_ADPCM']),
        *(('AIFF', subtype, 'LITTLE') for subtype in ['PCM_16', 'PCM_24', 'PCM_32']),
        *(('AU', subtype, 'FILE') for subtype in ['PCM_S8', *plain]),
        *(('AU', subtype, 'LITTLE') for subtype in ['PCM_16', 'PCM_24', 'FLOAT']),
        *(('CAF', subtype, 'FILE') for subtype in ['PCM_S8', *plain]),
        *(('CAF', subtype, 'LITTLE') for subtype in ['PCM_16', 'PCM_24', 'FLOAT']),
        *(('W64', subtype, 'FILE') for subtype in ['PCM_U8', *plain, 'IMA_ADPCM', 'MS_ADPCM']),
        *(('WAV', subtype, 'FILE') for subtype in ['IMA_ADPCM', 'MS_ADPCM']),
        *(('RF64', subtype, 'FILE') for subtype in ['PCM_24', 'FLOAT', 'ULAW']),
    ]
    for container, subtype, endian in cases:
        # Blocks of ADPCM are padded to their end, which costs room enough.
        seconds = 0.003 if 'ADPCM' in subtype else 0.006
        data = written(clip('container', 8000, seconds, 2), 8000, container, subtype, endian)
        if container == 'CAF':
            data = without_padding(data)
        kind = 'wav' if container == 'RF64' else container.lower()
        add(fixture, f'{container}-{subtype}{"-LITTLE" if endian == "LITTLE" else ""}', kind, data)
    for container, subtype in [('WAV', 'IMA_ADPCM'), ('WAV', 'MS_ADPCM'), ('AIFF', 'IMA_ADPCM'), ('AIFF', 'PCM_24')]:
        add(fixture, f'{container}-{subtype}-mono', container.lower(), written(clip('mono', 11025, 0.06, 1), 11025, container, subtype))
    return fixture


def without_padding(data):
    """libsndfile's CAF files have 4 kB of nothing."""
    begin = data.index(b'free')
    size = int.from_bytes(data[begin + 4 : begin + 12], 'big')
    return data[: begin + 4] + (8).to_bytes(8, 'big') + bytes(8) + data[begin + 12 + size :]


def mp3():
    fixture = Fixture()
    for rate, channels, seconds, level in [
        (8000, 1, 0.12, 0.5),
        (11025, 2, 0.1, 0.9),
        (16000, 1, 0.1, 0.1),
        (22050, 2, 0.06, 0.9),
        (24000, 1, 0.06, 0.5),
        (32000, 2, 0.05, 0.5),
        (44100, 2, 0.05, 0.1),
        (48000, 1, 0.05, 0.9),
    ]:
        data = written(clip('mp3', rate, seconds, channels), rate, 'MP3', 'MPEG_LAYER_III', level=level)
        add(fixture, f'mp3-{rate}-{channels}', 'mp3', data)
    return fixture


def flac_and_ogg():
    fixture = Fixture()
    for depth, subtype in [(8, 'PCM_S8'), (16, 'PCM_16'), (24, 'PCM_24')]:
        for channels, level in [(1, 0.0), (2, 1.0), (3, 0.5)]:
            data = written(clip('flac', 8000, 0.02, channels), 8000, 'FLAC', subtype, level=level)
            add(fixture, f'flac-{depth}-{channels}', 'flac', data)
    for channels in (1, 2, 3, 6):
        data = written(places(8000, 0.04, channels), 8000, 'OGG', 'VORBIS', level=0.5)
        add(fixture, f'vorbis-{channels}', 'vorbis', data)
    for channels in (1, 3, 6):
        data = written(places(48000, 0.012, channels), 48000, 'OGG', 'OPUS', level=0.5)
        add(fixture, f'opus-{channels}', 'opus', data)
    return fixture


if __name__ == '__main__':
    main({'audio/containers': containers, 'audio/mp3': mp3, 'audio/flac-and-ogg': flac_and_ogg})
