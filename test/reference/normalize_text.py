"""English texts for error rates, normalized by transformers' EnglishTextNormalizer: test/fixtures/tuning/normalize-text.safetensors.

    python test/reference/normalize_text.py [--check]
"""

from common import Fixture, generator, main
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

SPELLINGS = {'colour': 'color', 'organise': 'organize', 'theatre': 'theater', 'grey': 'gray', 'one': 'uno'}
SENTENCES = """
I won't go, can't stay, and he'd been there since it's been done.
Mr. Smith and Dr. Jones met Mrs. O'Neil at St. Paul's.
It costs $20 million and fifty cents, or twenty dollars and seven cents.
Two and a half percent of one hundred and twenty three thousand four hundred fifty six
The nineteen sixties; the 1960s; the twenty first century; thirty-second floor
one oh one, double oh seven, triple nine, three point one four one five nine
minus forty degrees, plus 5 degrees, positive thinking, negative
uh, um, hmm... mhm! MMM we're [noise] gonna (laughs) wanna <unk> go
Caf\u00e9 na\u00efve \u00c6sop stra\u00dfe \u0141\u00f3d \ufb01ne \u2460 \u00bd 10\u00b0
1,000,000 people; 3.14; v2.0; 10th; 2nd; 3 rd; a1b2c3; .5; 5. ; $.50; \u00a31.05; \u20ac0.05
a hundredth, two hundreds, tens of millions, five thousandths, zeroth, sixes, twenties, ninetieth
per cent, fifty per cent, fifty per hour, percent, cents, dollar, point, and, double, and a half
three hundred and, one and a half, we and a half, million and a half dollars
the colour of the theatre is grey; they organise one
1 1s one ones 11 21s 01 _1 1_ '1'
decillion, nineteen nonillion, two million million, zero million, oh hundred, 0 thousand
$5.5 million, 2.5 thousands, 1.23 hundred, 3.3.3 billion, 1.2.3.4
y'all's ma'am i'ma imma shoulda've  'tis  o ' clock
\u0663 billion; \u0663,\u0664; 5\u0663; $\u0663; \u0663%; \u0663 percent; \u0663 cents; twenty \u0663; point \u0663; a\u0663b
\u0663rd; \uff13 billion; \u0663.5 million; 3\u0663.5 million; \u0661 \u0661s; $3 \u00a2\u0664\u0665; double \u0663; \u0663.\u0664; \U0001d7d8 thousand
a\ufeffb \ufeff'd \u0663\ufeffbillion x\x1cy\x85z
\u0130stanbul \u03a3\u0391\u03a3 \u2019s it\u2019s\u00a0here\u2028now
""".strip().split('\n')  # fmt: skip
WORDS = (
    'one two three five six nine ten eleven twelve nineteen twenty thirty fifty ninety hundred thousand million billion oh zero o and and a half '
    'double triple point percent per cent cents dollar dollars pounds euro minus plus negative first second third fifth twelfth twentieth ones '
    "sixes thirties hundreds millionth thousands 1 2 7 10 15 100 1,000 2.5 0.5 3.14 $5 $0.07 \u00a320 \u20ac3 5% 1960s 2nd -4 +6 cat the won't it's "
    "he'd been mr st. dr. colour grey uh um a1 b2c . , ... ! - ( ) [ ] % $ 's 't gonna"
).split(' ')


def texts():
    random = generator('normalize text')
    yield from SENTENCES
    for _ in range(400):
        yield ' '.join(WORDS[random.randint(len(WORDS))] for _ in range(random.randint(2, 12)))


def build():
    fixture = Fixture()
    normalize = EnglishTextNormalizer(SPELLINGS)
    cases = [(text, normalize(text).strip()) for text in texts()]
    fixture.case(dict(name='english', spellings=SPELLINGS, cases=cases))
    return fixture


if __name__ == '__main__':
    main({'tuning/normalize-text': build})
