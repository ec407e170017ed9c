"""Words without the pauses in them, by openai/whisper's add_word_timestamps behind an alignment of random words:
test/fixtures/models/whisper-pauses.safetensors, whose numbers stand in its cases. A list of segments is one window; the windows of
a case follow each other.

No segment begins with punctuation that closes or ends with some that opens: openai/whisper would move such a token, and with it
a word of each segment behind, to another segment.
"""

import sys

here = sys.path.pop(0)  # whisper.py beside this file is not the package
from whisper import timing
from whisper.utils import get_end

sys.path.insert(0, here)
from common import Fixture, generator, main

WORDS = [' well', ' yes', ' it', ' was', ' there', ' so', ' not', ' late', ' .']
MARKS = [' (', ' "', '.', '?', ',', '!', ')', '。']


class Tokenizer:
    eot = 1000


def draw(random, seek):
    """Segments of a window that begins at `seek` hundredths of a second, their pieces in seconds behind that."""
    segments, now = [], 0
    for _ in range(random.randint(1, 4)):
        begin, pieces = now, []
        count = int(random.choice([0, 1, 2, 5, 9]))
        for i in range(count):
            length = int(random.choice([0, 4, 7, 9, 10, 13, 16, 61, 130, 303]))
            marks = MARKS if 0 < i < count - 1 and random.rand() < 0.4 else WORDS
            probability = round(float(random.rand()), 3)
            pieces.append((marks[random.randint(len(marks))], now / 50, (now + length) / 50, probability))
            now += length
        early, late = (int(random.choice([-40, -5, 0, 0, 5, 40])) for _ in range(2))
        start, end = max(0, begin + early), max(0, now + late)
        segments.append(dict(seek=seek, start=seek / 100 + start / 50, end=seek / 100 + end / 50, pieces=pieces))
        now += int(random.choice([0, 0, 23]))
    return segments


def window(segments, spoken_until):
    told = [dict(segment, tokens=[7] * len(segment['pieces'])) for segment in segments]
    alignment = [timing.WordTiming(text, [7], start, end, sure) for segment in segments for text, start, end, sure in segment['pieces']]
    timing.find_alignment = lambda *_, **__: alignment
    timing.add_word_timestamps(segments=told, model=None, tokenizer=Tokenizer, mel=None, num_frames=0, last_speech_timestamp=spoken_until)
    words = ('word', 'start', 'end', 'probability')
    return [dict(start=one['start'], end=one['end'], words=[[word[key] for key in words] for word in one['words']]) for one in told], get_end(told)


def pauses():
    fixture = Fixture()
    for case in range(30):
        random = generator(f'whisper pauses {case}')
        seek, spoken_until, windows = 0, 0.0, []
        for _ in range(2):
            segments = draw(random, seek)
            expected, ends = window(segments, spoken_until)
            windows.append(dict(spokenUntil=spoken_until, given=segments, expected=expected, ends=ends))
            spoken_until = ends
            seek += 2 * int(random.choice([250, 900, 1500]))
        fixture.case(dict(name=f'pauses-{case}', windows=windows))
    return fixture


if __name__ == '__main__':
    main({'models/whisper-pauses': pauses})
