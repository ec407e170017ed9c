"""1,000 varied lines of text, the same on every machine: `random.Random` with a fixed seed draws from lists in this file."""

import random
import unicodedata

ENGLISH = (
    'the of and a to in he have it that for they with as not on she at by this we you do but from or which one would '
    'all will there say who make when can more if no man out other so what time up go about than into could state only '
    "new year some take come these know see use get like then first any work now may such give over think don't it's "
    "we're I've they'll she'd can't Tokenization transformers electroencephalography Massachusetts McDonald internationalisation "
    'unbelievable COVID-19 3.14159 1,000,000 42 2024-05-17 10:45pm $5.99 #hashtag @user e-mail well-known'
).split()
OTHERS = {
    'german': 'Größe Straßenbahn übermäßig Äpfel fährt Donaudampfschifffahrtsgesellschaft für ÖPNV heißt'.split(),
    'french': 'élève déjà garçon œuvre naïve où ça l’été aujourd’hui Noël français'.split(),
    'vietnamese': 'Việt Nam tiếng nước người đường Nguyễn phở'.split(),
    'turkish': 'İstanbul ışık ğ şeker kırmızı DİYARBAKIR'.split(),
    'russian': 'привет мир как дела съешь ещё этих мягких французских булок Ёлка'.split(),
    'greek': 'Καλημέρα κόσμε ΣΊΣΥΦΟΣ φιλοσοφία ᾧ Ὀδυσσεύς'.split(),
    'arabic': 'مرحبا بالعالم السلام عليكم كتاب مُحَمَّد ٱلرَّحْمَٰنِ ١٢٣'.split(),
    'hebrew': 'שלום עולם בְּרֵאשִׁית ספר'.split(),
    'hindi': 'नमस्ते दुनिया हिन्दी क्षत्रिय १२३'.split(),
    'tamil': 'வணக்கம் உலகம் தமிழ்'.split(),
    'thai': 'สวัสดี ชาวโลก น้ำ ภาษาไทย'.split(),
    'chinese': '你好 世界 中文 漢字 𠮷野家 人工智能 。 ， 「引用」'.split(),
    'japanese': 'こんにちは 世界 カタカナ ﾊﾝｶｸ が ガ ㌔ 日本語'.split(),
    'korean': '안녕하세요 세계 한국어 각 값'.split(),
    'georgian': 'გამარჯობა მსოფლიო Ⴀ'.split(),
    'amharic': 'ሰላም ለዓለም'.split(),
}
EMOJI = '😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇯🇵 ❤️ ☃ 🤷🏻‍♂️ 🧑‍🚀 1️⃣ ©️ 🫠 👨‍⚕️'.split()
CODE = [
    'def f(x):\n    return x ** 2  # square\n',
    'for (let i = 0; i < n; i++) { a[i] += b[i] * 2; }',
    'SELECT * FROM users WHERE name LIKE "%o\'Brien%" AND id >= 10;',
    '#include <vector>\nint main() {\n\tstd::vector<int> v{1, 2, 3};\n}\n',
    '<div class="a b">&lt;x&gt; &amp; &#39;y&#39;</div>',
    '{"key": [1, 2.5e-10, null, true], "nested": {"a\\n": "\\u00e9"}}',
    'x = lambda *a, **k: (yield from g(*a, **k))',
    'git commit -m "fix: handle \'quotes\'" && git push --force-with-lease',
    r'\begin{equation} e^{i\pi} + 1 = 0 \end{equation}',
    'https://example.org/path/to/page?query=a%20b&x=1#frag',
    '/usr/local/lib/python3.11/site-packages/__init__.py',
    '\\d+(?:\\.\\d+)?|[^\\s]+',
    "isn't ISN'T it'S WE'RE they'Ll I'M you'D 've'll ''s ' s",
]
SPACES = [' ', '  ', '   ', '\t', '\n', '\r\n', '\n\n', '\t\t ', '\u00a0', '\u3000', '\u2003', '\u200b', '\u2028', '\u0085', '\ufeff', '\v', '\f', '\u2581', ' \u2581 ', '\u1680', '\u202f']
MARKS = ['\u0301', '\u0308', '\u0323', '\u0327', '\u20dd', '\u0338', '\u093c', '\u0e31', '\u05b8']
SPECIAL = ['<s>', '</s>', '<unk>', '<pad>', '<mask>', '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|startoftext|>', '[INST]', '[/INST]', '[REFERENCE_DOC_3]', '<0x41>', '<think>', '[CLS]', '[MASK]']
COMPATIBLE = ['ﬁ', 'ﬀ', '①', 'Ⅷ', '½', 'x²', 'H₂O', '™', '℃', 'Ａｂｃ', '１２３', 'ﷺ', '㍿', 'ǅ', '𝔘𝔫𝔦', '𝟘𝟙', 'ſ', 'K', 'Å', 'e\u0301', 'A\u030a', '\u1112\u1161\u11ab', '각\u11a8', '“quoted”', '‘it’s’', '…', '—', '–', '\u00ad', 'ß', 'ẞ', 'İ', 'ŉ']


def words(draw, count):
    made = []
    for _ in range(count):
        word = draw.choice(ENGLISH)
        style = draw.random()
        if style < 0.1:
            word = word.capitalize()
        elif style < 0.13:
            word = word.upper()
        made.append(word + (draw.choice('.,;:!?') if draw.random() < 0.12 else ''))
    return ' '.join(made)


def letters(draw, low, high, count):
    made = []
    while len(made) < count:
        letter = chr(draw.randint(low, high))
        # Only what every Unicode version since 13 agrees on.
        if unicodedata.category(letter) not in ('Cn', 'Cs') and unicodedata.category(letter)[0] != 'C':
            made.append(letter)
    return ''.join(made)


def one(draw, kind):
    if kind == 'english':
        return words(draw, draw.randint(1, 24))
    if kind == 'other':
        pool = OTHERS[draw.choice(sorted(OTHERS))]
        return draw.choice([' ', ' ', '']).join(draw.choice(pool) for _ in range(draw.randint(1, 8)))
    if kind == 'emoji':
        return draw.choice(['', ' ']).join(draw.choice(EMOJI + ENGLISH[:20]) for _ in range(draw.randint(1, 8)))
    if kind == 'code':
        return draw.choice(CODE) + draw.choice(['', '\n', ' ']) + draw.choice(CODE + ['', ''])
    if kind == 'spaces':
        return ''.join(draw.choice(SPACES) * draw.randint(1, 3) + draw.choice(ENGLISH + ['', '']) for _ in range(draw.randint(1, 6)))
    if kind == 'marks':
        return ''.join(draw.choice('aeiouAçñ नबกא가 ') + ''.join(draw.choice(MARKS) for _ in range(draw.randint(0, 3))) for _ in range(draw.randint(1, 10)))
    if kind == 'numbers':
        return draw.choice([' ', '', ', ']).join(draw.choice([str(draw.randint(0, 10 ** draw.randint(1, 12))), f'{draw.random():.6f}', '٣٤', 'Ⅻ', '²', '1e-5', '0x1F', '½']) for _ in range(draw.randint(1, 6)))
    if kind == 'control':
        return ''.join(draw.choice([chr(draw.randint(0, 31)), chr(draw.randint(127, 160)), '\u200d', '\u200e', '\ufffd', '\ue000', draw.choice(ENGLISH)]) for _ in range(draw.randint(1, 8)))
    if kind == 'special':
        return ''.join(draw.choice(SPECIAL + [' ', ' ', 'a', ' word ', '\n']) for _ in range(draw.randint(1, 6)))
    if kind == 'compatible':
        return draw.choice(['', ' ']).join(draw.choice(COMPATIBLE + ENGLISH[:9]) for _ in range(draw.randint(1, 8)))
    if kind == 'latin':
        return letters(draw, 0x20, 0x24F, draw.randint(1, 16))
    if kind == 'plane0':
        return letters(draw, 0x250, 0xD7FF, draw.randint(1, 10))
    if kind == 'plane1':
        return letters(draw, 0x1F300, 0x1F5FF, draw.randint(1, 6)) + letters(draw, 0x20000, 0x2A6D0, draw.randint(0, 3))
    if kind == 'punctuation':
        return ''.join(draw.choice('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~ aZ9¿¡«»§¶·') for _ in range(draw.randint(1, 30)))
    if kind == 'mixed':
        return draw.choice([' ', '', '\n']).join(one(draw, draw.choice(KINDS[:-1])) for _ in range(draw.randint(2, 3)))
    raise ValueError(kind)


KINDS = ['english'] * 6 + 'other other other emoji code spaces spaces marks numbers control special special compatible compatible latin plane0 plane1 punctuation mixed'.split()


def lines():
    draw = random.Random(20240517)
    made = ['', ' ', '  ', '\n', '\t', 'a', '\u2581', 'é', '😀', '\0', '\ufeff', "'s", ' \n ', 'Hello world!', ' Hello', 'Hello ', '<s>', 'a' * 3000, 'ab' * 1500, '你' * 500, '😀' * 300, ' ' * 1000, '\n' * 200, '1' * 400, '-' * 400, 'Ab1 ' * 500, 'e\u0301' * 200, words(draw, 700)]
    while len(made) < 1000:
        made.append(one(draw, draw.choice(KINDS)))
    return made


if __name__ == '__main__':
    all_lines = lines()
    print(len(all_lines), 'lines,', sum(map(len, all_lines)), 'characters')
