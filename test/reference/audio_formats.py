"""Audio files of every container and codec that is read, as libsndfile writes them, with the samples that it reads back.

Needs only soundfile and av of requirements.txt. libsndfile's decoders are libFLAC, libvorbis, libopus and mpg123.
"""

import io
import re
from pathlib import Path

import av

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


def random_adpcm():
    """Every step, and samples that reach the limits."""
    fixture = Fixture()
    draw = np.random.RandomState(36)
    for container, subtype, channels in [('WAV', 'IMA_ADPCM', 2), ('WAV', 'MS_ADPCM', 2), ('AIFF', 'IMA_ADPCM', 1)]:
        data = bytearray(written(clip('random', 8000, 0.12, channels), 8000, container, subtype))
        begin, end, block = adpcm_blocks(data)
        for at in range(begin, end, block):
            data[at : at + block] = draw.bytes(block)
            if container == 'AIFF':
                data[at + 1] = data[at + 1] & 0x80 | draw.randint(89)
            elif subtype == 'IMA_ADPCM':
                for channel in range(channels):
                    # The first steps are the largest one and one beyond the table.
                    step = draw.randint(89) if at > begin else [88, 100][channel]
                    data[at + 4 * channel + 2 : at + 4 * channel + 4] = bytes([step, 0])
            else:
                data[at : at + 2] = bytes([draw.randint(7), draw.randint(7)])
                data[at + 2 : at + 6] = draw.randint(16, 200, 2).astype('<i2').tobytes()
                # Large ones multiply the step: so rare that it stays within its 16 bits.
                nibbles = np.where(draw.rand(2 * block) < 0.9, draw.choice([0, 1, 2, 3, 13, 14, 15], 2 * block), draw.randint(16, size=2 * block))
                data[at + 14 : at + block] = (16 * nibbles[::2] + nibbles[1::2])[: block - 14].astype(np.uint8).tobytes()
        add(fixture, f'{container}-{subtype}-random', container.lower(), bytes(data))
    return fixture


def random_mp3(forms):
    """Frames of random numbers in the forms that no encoder at hand writes.

    mpg123 and FFmpeg agree within 1e-5, but for a few bands of MPEG-2's intensity stereo: there mpg123 is followed.
    """
    fixture = Fixture()
    draw = np.random.RandomState(36)
    for name, settings in forms.items():
        # MPEG-2 has three tables for the sizes of scale factors.
        frames = 2 if settings.get('rate', 44100) >= 32000 else 3
        data = b''.join(Mp3Frame(draw, table=i, **settings).bytes() for i in range(frames))
        add(fixture, f'mp3-{name}', 'mp3', data)
        mpg123 = fixture.tensors[f'mp3-{name}/out/samples'].numpy()
        ffmpeg = with_ffmpeg(data)[:, : mpg123.shape[1]]
        error = np.abs(mpg123[:, : ffmpeg.shape[1]] - ffmpeg).max() / np.abs(mpg123).max()
        print(f'{name}: peak {np.abs(mpg123).max():.3f}, FFmpeg differs by {error:.1e} in {ffmpeg.shape[1]} of {mpg123.shape[1]}')
    return fixture


def adpcm_blocks(data):
    """Where the samples of a WAV or AIFF begin and end, and the bytes of a block."""
    if data[:4] == b'RIFF':
        begin = data.index(b'data') + 8
        block = int.from_bytes(data[32:34], 'little')
        size = int.from_bytes(data[begin - 4 : begin], 'little')
    else:
        begin = data.index(b'SSND') + 16
        block = 34
        size = int.from_bytes(data[begin - 12 : begin - 8], 'big') - 8
    return begin, begin + size, block


def with_ffmpeg(data):
    with av.open(io.BytesIO(data), format='mp3') as file:
        blocks = [frame.to_ndarray() for frame in file.decode(audio=0)]
    return np.concatenate(blocks, 1)


TABLES = (Path(__file__).parents[2] / 'native/core/audio/mp3_tables.cc').read_text()


def huffman_codes():
    """{table: {symbol: bits}} of the trees in our decoder: they decide which bits are drawn, and mpg123 what these mean."""
    codes = {}
    for number, texts in re.findall(r'\{(\d+),\s*((?:"[^"]*"\s*)+)\}', TABLES):
        text = ''.join(re.findall(r'"([^"]*)"', texts))
        code = {}

        def grow(at, bits):
            if text[at] != '-':
                code[int(text[at : at + 2], 16)] = bits
                return at + 2
            return grow(grow(at + 1, bits + '0'), bits + '1')

        grow(0, '')
        codes[int(number)] = code
    return codes


CODES = huffman_codes()
LINBITS = [1, 2, 3, 4, 6, 8, 10, 13, 4, 5, 6, 7, 8, 9, 11, 13]
LSF_COUNTS = [
    [[6, 5, 5, 5], [9, 9, 9, 9], [6, 9, 9, 9]],
    [[6, 5, 7, 3], [9, 9, 12, 6], [6, 9, 12, 6]],
    [[11, 10, 0, 0], [18, 18, 0, 0], [15, 18, 0, 0]],
    [[7, 7, 7, 0], [12, 12, 12, 0], [6, 15, 12, 0]],
    [[6, 6, 6, 3], [12, 9, 9, 6], [6, 12, 9, 6]],
    [[8, 8, 5, 0], [15, 12, 9, 0], [6, 18, 9, 0]],
]
SCALE_BITS = [[0, 0, 0, 0, 3, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4], [0, 1, 2, 3, 0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 2, 3]]


class Mp3Frame:
    """A frame of layer III with random contents (ISO/IEC 11172-3 and 13818-3), whole in itself."""

    def __init__(self, draw, rate=44100, channels=2, extension=None, block=0, mixed=False, tables=(1, 32), gain=150, table=0):
        self.draw = draw
        self.rate, self.channels, self.extension = rate, channels, extension
        self.block, self.mixed, self.tables, self.gain, self.table = block, mixed, tables, gain, table
        self.version = 1 if rate >= 32000 else 2 if rate >= 16000 else 2.5
        self.full = self.version == 1
        own = rate not in (16000, 11025, 12000, 22050)
        found = re.search(rf'k{rate} = bands\(\{{(.*?)\}}' if own else r'kLowWidths = \{(.*?)\}', TABLES, re.S).group(1)
        self.long = [0, *np.cumsum([int(width) for width in re.findall(r'\d+', found)])]

    def number(self, value, count):
        return format(int(value), f'0{count}b') if count > 0 else ''

    def random(self, count):
        return ''.join(str(bit) for bit in self.draw.randint(2, size=count))

    def bytes(self):
        granules = 2 if self.full else 1
        sides, datas = '', ''
        bitrate = 14 if self.full else 12
        kilobits = 320 if self.full else 128
        size = (144000 if self.full else 72000) * kilobits // self.rate
        side_bytes = [[9, 17], [17, 32]][self.full][self.channels == 2]
        budget = (8 * (size - 4 - side_bytes)) // (granules * self.channels)
        budget = min(budget, 4000)
        shared = [self.draw.randint(2, size=4) if self.full and self.block != 2 else [0] * 4 for _ in range(self.channels)]
        for granule in range(granules):
            for channel in range(self.channels):
                side, data = self.granule(channel, budget, shared[channel] if granule == 1 else [0] * 4)
                sides += side
                datas += data
        head = self.number(0, 9 if self.full else 8)
        head += self.number(0, (5 if self.channels == 1 else 3) if self.full else self.channels)
        if self.full:
            head += ''.join(str(bit) for one in shared for bit in one)
        version = {1: 3, 2: 2, 2.5: 0}[self.version]
        rates = [44100, 48000, 32000]
        index = rates.index(self.rate * {1: 1, 2: 2, 2.5: 4}[self.version])
        mode = 3 if self.channels == 1 else 0 if self.extension is None else 1
        header = '1' * 11 + self.number(version, 2) + '01' + '1' + self.number(bitrate, 4) + self.number(index, 2) + '00'
        header += self.number(mode, 2) + self.number(self.extension or 0, 2) + '0000'
        whole = header + head + sides + datas
        assert len(header + head + sides) == 8 * (4 + side_bytes)
        whole += '0' * (8 * size - len(whole))
        assert len(whole) == 8 * size
        return bytes(int(whole[i : i + 8], 2) for i in range(0, len(whole), 8))

    def scale_factors(self, channel, shared):
        """The code, and the bits."""
        kind = 0 if self.block != 2 else 2 if self.mixed else 1
        if self.full:
            # Of 4 bits they would be places beyond the last.
            code = self.draw.randint(14 if self.extension in (1, 3) else 16)
            lower, upper = SCALE_BITS[0][code], SCALE_BITS[1][code]
            if kind == 0:
                groups = zip([6, 5, 5, 5], [lower, lower, upper, upper], shared)
                return code, ''.join(self.random(count * width) for count, width, skip in groups if not skip)
            return code, self.random((17 if self.mixed else 18) * lower + 18 * upper)
        if self.extension in (1, 3) and channel == 1:
            code = self.draw.randint(*[(0, 180), (180, 244), (244, 256)][self.table])
            if code < 180:
                table, widths = 3, [code // 36, code % 36 // 6, code % 6, 0]
            elif code < 244:
                table, widths = 4, [(code - 180) >> 4, (code - 180) >> 2 & 3, (code - 180) & 3, 0]
            else:
                table, widths = 5, [(code - 244) // 3, (code - 244) % 3, 0, 0]
            bits = ''
            for count, width in zip(LSF_COUNTS[table][kind], widths):
                for _ in range(count):
                    # mpg123 and FFmpeg do not agree on which of them means no place.
                    allowed = [value for value in range(2**width) if value != 7 and value != 2**width - 1 or width == 0]
                    bits += self.number(self.draw.choice(allowed), width)
            return 2 * code + self.draw.randint(2), bits
        code = self.draw.randint(*[(0, 400), (400, 500), (500, 512)][self.table])
        if code < 400:
            table, widths = 0, [(code >> 4) // 5, (code >> 4) % 5, code >> 2 & 3, code & 3]
        elif code < 500:
            table, widths = 1, [((code - 400) >> 2) // 5, ((code - 400) >> 2) % 5, code - 400 & 3, 0]
        else:
            table, widths = 2, [(code - 500) // 3, (code - 500) % 3, 0, 0]
        return code, ''.join(self.random(count * width) for count, width in zip(LSF_COUNTS[table][kind], widths))

    def granule(self, channel, budget, shared):
        draw = self.draw
        code, data = self.scale_factors(channel, shared)
        switched = self.block != 0
        regions = [draw.randint(8), draw.randint(4)]
        chosen = [draw.choice([table for table in range(*self.tables) if table not in (4, 14)]) for _ in range(3 - switched)]
        if switched:
            short = self.block == 2 and not self.mixed
            first = self.long[6 if short else 8] if self.version == 2.5 else 36 if self.full or self.block == 2 else 54
            ends = [first, 576]
        else:
            ends = [self.long[regions[0] + 1], self.long[min(22, regions[0] + regions[1] + 2)], 576]
        # A right channel that ends early is where intensity stereo begins.
        most = 40 if channel == 1 and self.extension in (1, 3) else 500
        at = 0
        for table, end in zip(chosen, ends):
            while at < min(end, most):
                pair = self.pair(table)
                if len(data) + len(pair) > budget - 200:
                    most = 0
                    break
                data += pair
                at += 2
        pairs = at // 2
        plain = draw.randint(2)
        while at < min(576, most + 60 if most == 500 else pairs * 2 + 12):
            quad = self.quad(plain)
            if len(data) + len(quad) > budget:
                break
            data += quad
            at += 4
        side = self.number(len(data), 12) + self.number(pairs, 9) + self.number(self.gain + draw.randint(12), 8)
        side += self.number(code, 4 if self.full else 9) + str(int(switched))
        if switched:
            side += self.number(self.block, 2) + str(int(self.mixed)) + ''.join(self.number(table, 5) for table in chosen)
            side += ''.join(self.number(draw.randint(4), 3) for _ in range(3))
        else:
            side += ''.join(self.number(table, 5) for table in chosen) + self.number(regions[0], 4) + self.number(regions[1], 3)
        if self.full:
            side += str(draw.randint(2))
        return side + str(draw.randint(2)) + str(plain), data

    def pair(self, table):
        if table == 0:
            return ''
        code = CODES[table if table < 16 else 16 if table < 24 else 24]
        symbol = self.draw.choice(list(code))
        more = LINBITS[table - 16] if table >= 16 else 0
        bits = code[symbol]
        for value in (symbol >> 4, symbol & 15):
            if value == 15 and more:
                # Small ones, so that one number does not drown the others.
                bits += self.number(self.draw.randint(2 ** min(more, 3)), more)
            if value > 0:
                bits += self.random(1)
        return bits

    def quad(self, plain):
        value = self.draw.randint(16)
        bits = self.number(15 - value, 4) if plain else CODES[32][value]
        return bits + self.random(bin(value).count('1'))


MPEG_1 = {
    'intensity': {'extension': 1},
    'intensity with middle and side, mixed': {'extension': 3, 'block': 2, 'mixed': True, 'rate': 48000},
    'intensity, short': {'extension': 1, 'block': 2, 'rate': 32000},
    'stop': {'block': 3, 'channels': 1, 'rate': 32000},
    'mixed': {'block': 2, 'mixed': True, 'channels': 1},
}
MPEG_2 = {
    'low': {'rate': 16000, 'channels': 1},
    'low mixed': {'block': 2, 'mixed': True, 'rate': 22050, 'channels': 1},
    'low start': {'block': 1, 'rate': 24000, 'channels': 1},
    'low short': {'block': 2, 'rate': 24000, 'channels': 1},
    'quarter': {'rate': 12000, 'channels': 1},
    'quarter, short': {'rate': 8000, 'channels': 1, 'block': 2},
    'quarter, start': {'rate': 11025, 'channels': 1, 'block': 1},
}
# Not of mixed blocks, which mpg123 and FFmpeg understand differently.
MPEG_2_INTENSITY = {
    'low intensity': {'extension': 1, 'rate': 22050},
    'low intensity with middle and side': {'extension': 3, 'rate': 24000},
    'low intensity, short': {'extension': 1, 'block': 2, 'rate': 16000},
}


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
    main(
        {
            'audio/containers': containers,
            'audio/adpcm': random_adpcm,
            'audio/mp3': mp3,
            'audio/mpeg-1': lambda: random_mp3(MPEG_1),
            'audio/mpeg-2': lambda: random_mp3(MPEG_2),
            'audio/mpeg-2-intensity': lambda: random_mp3(MPEG_2_INTENSITY),
            'audio/flac-and-ogg': flac_and_ogg,
        }
    )
