"""Small video files, and what PyAV decodes of them: every sixth pixel of every frame as RGB, and the sound."""

import io
from fractions import Fraction

import av
import numpy as np
import torch
from common import Fixture, main


def moving(count, height, width):
    """Discs on waves, all of them moving: no two frames are alike."""
    y, x = np.mgrid[0:height, 0:width]
    for i in range(count):
        waves = [127 + 100 * np.sin((x * (c + 1) + y * 2) / 9 + i / (3 + c)) for c in range(3)]
        picture = np.stack(waves, -1)
        picture[(x - 3 * i % width) ** 2 + (y - height / 2) ** 2 < (height / 5) ** 2] = [230, 40, 20]
        yield picture.clip(0, 255).astype(np.uint8)


def encoded(codec, container, *, count=20, height=48, width=64, pixels='yuv420p', times=None, sound=None, tags=None, **options):
    file = io.BytesIO()
    # Matroska numbers its tracks at random, unless it is told not to.
    flags = {'fflags': 'bitexact'} if container in ('matroska', 'webm') else {}
    with av.open(file, 'w', format=container, options=flags) as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            track = out.add_stream(sound, rate=16000)
            track.layout = 'stereo'
        for i, picture in enumerate(moving(count, height, width)):
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound is not None:
            t = np.arange(12800) / 16000
            tones = np.stack([np.sin(2 * np.pi * 440 * t), 0.5 * np.sin(2 * np.pi * 660 * t)]).astype(np.float32) / 2
            frame = av.AudioFrame.from_ndarray(tones, format='fltp', layout='stereo')
            frame.sample_rate, frame.pts = 16000, 0
            out.mux(track.encode(frame))
            out.mux(track.encode())
    return file.getvalue()


def files():
    x264 = {'preset': 'fast', 'crf': '28', 'g': '8'}
    yield 'h264', encoded('libx264', 'mp4', **x264, bf='3')
    yield 'h264-open', encoded('libx264', 'matroska', **x264, bf='3', **{'x264-params': 'open-gop=1'})
    yield 'h264-mpegts', encoded('libx264', 'mpegts', **x264, bf='2')
    yield 'h264-bt709', encoded('libx264', 'mp4', **x264, tags={'colorspace': 1, 'color_range': 1})
    yield 'h264-full', encoded('libx264', 'mp4', **x264, pixels='yuvj420p')
    yield 'h264-10-bit', encoded('libx264', 'mp4', **x264, pixels='yuv420p10le')
    yield 'h264-sound', encoded('libx264', 'mp4', **x264, sound='aac')
    yield 'h264-variable', encoded('libx264', 'mp4', **x264, bf='2', times=[i * 40 + 13 * i * i for i in range(20)])
    yield 'h264-raw', encoded('libx264', 'h264', **x264, bf='0')
    yield 'hevc', encoded('libx265', 'mp4', **{'x265-params': 'keyint=8:log-level=none:pools=1', 'crf': '30'})
    yield 'vp9', encoded('libvpx-vp9', 'webm', g='8', crf='40', b='0')
    yield 'av1', encoded('libsvtav1', 'mp4', **{'preset': '12', 'crf': '50', 'svtav1-params': 'keyint=8'})
    yield 'mpeg4-avi', encoded('mpeg4', 'avi', g='8', qscale='8')
    yield 'odd', encoded('libx264', 'mp4', **x264, height=35, width=51, pixels='yuv444p')
    yield 'one-frame', encoded('libx264', 'mp4', **x264, count=1)


def odd_files():
    yield 'one-pixel', encoded('libx264', 'mp4', preset='fast', crf='10', g='4', height=1, width=1, pixels='yuv444p', count=6)
    yield 'wide', encoded('mjpeg', 'matroska', qscale='20', height=2, width=30000, pixels='yuvj444p', count=1)


def sounding_files():
    yield 'matroska-sound', encoded('mpeg4', 'matroska', g='8', qscale='20', count=10, sound='aac')
    yield 'avi-sound', encoded('mpeg4', 'avi', g='8', qscale='20', count=10, sound='mp2')


def odd_videos():
    return videos(odd_files())


def sounding_videos():
    return videos(sounding_files())


def videos(made=None):
    fixture = Fixture()
    for name, data in made or files():
        with av.open(io.BytesIO(data)) as video:
            stream = video.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            frames = [frame.to_ndarray(format='rgb24')[::6, ::6] for frame in video.decode(stream)]
        out = {'every6': torch.from_numpy(np.stack(frames))}
        if name.endswith('sound'):
            with av.open(io.BytesIO(data)) as video:
                sound = np.concatenate([frame.to_ndarray() for frame in video.decode(audio=0)], -1)
            out['sound'] = torch.from_numpy(sound[:, ::16].copy())
        fixture.case(
            {'name': name, 'size': [stream.height, stream.width], 'count': len(frames), 'rate': float(rate)},
            file={'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)},
            out=out,
        )
    return fixture


if __name__ == '__main__':
    main({'vision/videos-decoded': videos, 'vision/videos-odd': odd_videos, 'vision/videos-sounding': sounding_videos})
