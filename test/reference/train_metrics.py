"""Fixtures for lib/train/metrics: values against scikit-learn and scipy, texts against sacrebleu, jiwer, rouge_score and NLTK.

    python test/reference/train_metrics.py [--check] [train/metrics-values train/metrics-auc train/metrics-text train/metrics-meteor]
"""

import re

import warnings

import jiwer
import numpy as np
import sacrebleu
import torch
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score
from rouge_score import rouge_scorer
from scipy import stats
from sklearn import metrics

from common import Fixture, generator, main


def doubles(values):
    return {key: torch.tensor(value if key.endswith('alignment') else np.asarray(value, dtype=np.float64)) for key, value in values.items()}


def concordance(truth, guess):
    """Lin (1989), variances over n."""
    covariance = ((truth - truth.mean()) * (guess - guess.mean())).mean()
    with np.errstate(invalid='ignore'):
        return 2 * covariance / (truth.var() + guess.var() + (truth.mean() - guess.mean()) ** 2)


def value_cases():
    fixture = Fixture()
    names = ['noisy', 'far_from_zero', 'tiny', 'ties', 'opposite', 'perfect', 'constant_guess', 'constant_truth']
    for name in [*names, 'both_constant', 'same_constant', 'two', 'whole']:
        random = generator(f'metric values {name}')
        samples = 2 if name == 'two' else 60
        truth = random.standard_normal(samples)
        guess = truth * 0.7 + random.standard_normal(samples) * 0.5
        if name == 'far_from_zero':
            truth, guess = truth + 1e6, guess + 1e6
        if name == 'tiny':
            truth, guess = truth * 1e-9, guess * 1e-9
        if name == 'ties':
            truth, guess = np.round(truth), np.round(guess)
        if name == 'opposite':
            guess = -3 * truth + 1
        if name == 'perfect':
            guess = truth.copy()
        if name in ('constant_truth', 'both_constant', 'same_constant'):
            # A number whose mean numpy gives exactly; with others scikit-learn divides by rounding errors.
            truth = np.full(samples, 0.5)
        if name in ('constant_guess', 'both_constant'):
            guess = np.full(samples, 0.25)
        if name == 'same_constant':
            guess = truth.copy()
        if name == 'whole':
            truth, guess = random.randint(0, 5, samples).astype(float), random.randint(0, 5, samples).astype(float)
        fixture.case(
            {'name': name, 'truth': truth.tolist(), 'guess': guess.tolist()},
            out=doubles(
                {
                    'mae': metrics.mean_absolute_error(truth, guess),
                    'mse': metrics.mean_squared_error(truth, guess),
                    'rmse': metrics.root_mean_squared_error(truth, guess),
                    'r2': metrics.r2_score(truth, guess),
                    'pearson': stats.pearsonr(truth, guess)[0],
                    'spearman': stats.spearmanr(truth, guess)[0],
                    'concordance': concordance(truth, guess),
                }
            ),
        )
    return fixture


def auc_cases():
    fixture = Fixture()
    for name in ['binary', 'ties', 'perfect', 'reversed', 'constant', 'one_class', 'words', 'skewed']:
        random = generator(f'metric auc {name}')
        truth = (random.random_sample(50) < (0.06 if name == 'skewed' else 0.4)).astype(int)
        scores = truth * 0.5 + random.standard_normal(50)
        if name == 'ties':
            scores = np.round(scores)
        if name == 'perfect':
            scores = truth * 1.0
        if name == 'reversed':
            scores = 1.0 - truth
        if name == 'constant':
            scores = np.zeros(50)
        if name == 'one_class':
            truth = np.ones(50, int)
        labels = np.array(['no', 'yes'])[truth] if name == 'words' else truth
        fixture.case(
            {'name': name, 'truth': labels.tolist(), 'scores': scores.tolist()},
            out=doubles({'auc': metrics.roc_auc_score(labels, scores)}),
        )
    for name, classes in [('three', 3), ('five', 5)]:
        random = generator(f'metric auc {name}')
        truth = np.concatenate([np.arange(classes), random.randint(0, classes, 60) ** 2 // classes])
        scores = np.exp(random.standard_normal((len(truth), classes)) + 2 * np.eye(classes)[truth])
        scores /= scores.sum(1, keepdims=True)
        fixture.case(
            {'name': name, 'truth': truth.tolist(), 'scores': scores.tolist()},
            out=doubles(
                {
                    f'{kind}.{average}': metrics.roc_auc_score(truth, scores, multi_class=kind, average=average)
                    for kind in ('ovr', 'ovo')
                    for average in ('macro', 'weighted')
                }
            ),
        )
    for name in ['four', 'one_class', 'guess_constant', 'none_right', 'words']:
        random = generator(f'metric agreement {name}')
        truth = random.randint(0, 4, 80)
        guess = np.where(random.random_sample(80) < 0.5, truth, random.randint(0, 4, 80))
        if name == 'one_class':
            truth, guess = np.zeros(80, int), np.zeros(80, int)
        if name == 'guess_constant':
            guess = np.zeros(80, int)
        if name == 'none_right':
            guess = (truth + 1) % 4
        if name == 'words':
            truth, guess = np.array(['d', 'b', 'c', 'a'])[truth], np.array(['d', 'b', 'c', 'a'])[guess]
        kappas = {
            f'kappa.{weights or "none"}': metrics.cohen_kappa_score(truth, guess, weights=weights)
            for weights in (None, 'linear', 'quadratic')
        }
        fixture.case(
            {'name': f'agreement_{name}', 'truth': truth.tolist(), 'guess': guess.tolist()},
            out=doubles({'mcc': metrics.matthews_corrcoef(truth, guess), **kappas}),
        )
    return fixture


PAIRS = [
    ('The cat sat on the mat.', ['The cat is sitting on the mat.', 'A cat sat on the mat .']),
    ('It costs 3,400.50 dollars - or "less"?', ['It costs 3,400.50 dollars, or less.', 'It costs 3400.50 dollars – or less?']),
    ('he said: rock&roll &amp; &quot;blues&quot; (1990-1995)', ['He said: rock & roll & "blues" (1990-1995)', 'x']),
    ('Grüße aus Köln, 😀 naïve café…', ['Grüße aus Köln! 😀 ein naives Café …', 'Gruß aus Köln']),
    ('今日は 天気 が いい です。', ['今日は 天気 が とても いい です。', '今日 は いい 天気 です 。']),
    ('the the the the the the the', ['the cat is on the mat', 'there is a cat on the mat']),
    ('  spaces\tand\u00a0tabs \u3000 everywhere\u0085here \ufeffmark ', ['spaces and tabs everywhere here mark', 'spaces']),
    ('line-\nbreak and\nanother <skipped> one', ['linebreak and another one', 'line break']),
    ('İstanbul ΣΑΣ ẞ', ['istanbul σας ß', 'İSTANBUL']),
    ('one', ['one', 'two']),
]


def text_sets():
    guess = [pair[0] for pair in PAIRS]
    both = [pair[1] for pair in PAIRS]
    first = [[refs[0]] for refs in both]
    random = generator('metric texts')
    vocabulary = 'a b c d e fg hi jk lm'.split()

    def sentence(longest):
        return ' '.join(random.choice(vocabulary, random.randint(0, longest)))

    drawn = [(sentence(30), [sentence(30)]) for _ in range(15)]
    edited = []
    for _ in range(12):
        words = list(random.choice(vocabulary, random.randint(1, 120)))
        other = [w for w in words if random.random_sample() > 0.15]
        for _ in range(random.randint(0, 8)):
            other.insert(random.randint(0, len(other) + 1), str(random.choice(vocabulary)))
        edited.append((' '.join(other), [' '.join(words)]))
    return {
        'sentences': (guess, first),
        'two_references': (guess, both),
        'random': ([g for g, _ in drawn], [r for _, r in drawn]),
        'edited': ([g for g, _ in edited], [r for _, r in edited]),
        'empty_guess': (['', 'a b c'], [['a b'], ['a b c d']]),
        'empty_reference': (['a b', 'c'], [[''], ['c']]),
        'only_empty_references': (['a b', ''], [[''], [' ']]),
        'all_empty': (['', ' '], [[''], ['']]),
        'short': (['a b', 'c d'], [['a b'], ['c e']]),
        'no_match': (['x y z w v'], [['a b c d e']]),
        'perfect': (['the same text here now'], [['the same text here now']]),
        'long_guess': (['a b c d e f g h a b c'], [['a b c d']]),
    }


TYPES = {'equal': 0, 'substitute': 1, 'insert': 2, 'delete': 3}


def edit_values(prefix, result, rate):
    chunks = [
        [i, TYPES[c.type], c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx]
        for i, alignment in enumerate(result.alignments)
        for c in alignment
    ]
    counts = [result.hits, result.substitutions, result.deletions, result.insertions]
    return {
        f'{prefix}.rate': rate,
        f'{prefix}.counts': counts,
        f'{prefix}.alignment': np.asarray(chunks, np.int16).reshape(-1, 6),
    }


BLEU_OPTIONS = {
    'default': {},
    'lowercase': {'lowercase': True},
    'none': {'smooth_method': 'none'},
    'floor': {'smooth_method': 'floor'},
    'floor_value': {'smooth_method': 'floor', 'smooth_value': 0.5},
    'add_k': {'smooth_method': 'add-k'},
    'add_k_value': {'smooth_method': 'add-k', 'smooth_value': 0.3},
    'order_2': {'max_ngram_order': 2},
    'order_6': {'max_ngram_order': 6, 'effective_order': True},
    'intl': {'tokenize': 'intl'},
    'char': {'tokenize': 'char'},
    'split': {'tokenize': 'none'},
}
CHRF_OPTIONS = {
    'default': {},
    'plus_plus': {'word_order': 2},
    'lowercase': {'lowercase': True},
    'whitespace': {'whitespace': True},
    'beta_1': {'beta': 1, 'char_order': 3},
}


def bleu_values(score):
    lengths = [score.sys_len, score.ref_len]
    return np.array([score.score, score.bp, *lengths, *score.precisions, *score.counts, *score.totals])


def text_cases():
    fixture = Fixture()
    rouge = rouge_scorer.RougeScorer(['rouge1', 'rouge2', 'rougeL'])
    for name, (guess, references) in text_sets().items():
        streams = list(zip(*references))
        out, signatures = {}, {}
        for key, options in BLEU_OPTIONS.items():
            bleu = sacrebleu.BLEU(**options)
            out[f'bleu.{key}'] = bleu_values(bleu.corpus_score(guess, streams))
            signatures[key] = str(bleu.get_signature()).rsplit('|version:', 1)[0]
        sentence = sacrebleu.BLEU(effective_order=True)
        out['bleu.sentences'] = [sentence.sentence_score(g, r).score for g, r in zip(guess, references)]
        for key, options in CHRF_OPTIONS.items():
            out[f'chrf.{key}'] = sacrebleu.CHRF(**options).corpus_score(guess, streams).score
        scores = [rouge.score_multi(r, g) for g, r in zip(guess, references)]
        for kind in ('rouge1', 'rouge2', 'rougeL'):
            out[kind] = np.mean([[s[kind].precision, s[kind].recall, s[kind].fmeasure] for s in scores], axis=0)
        first = list(streams[0])
        words, characters = jiwer.process_words(first, guess), jiwer.process_characters(first, guess)
        out |= edit_values('words', words, [words.wer, words.mer, words.wip, words.wil])
        out |= edit_values('characters', characters, [characters.cer])
        fixture.case(
            {'name': name, 'guess': guess, 'references': references, 'signatures': signatures}, out=doubles(out)
        )
    return fixture


BASES = """relate condition valence hesitate digit conform radical differ vile analog vietnam predicate operate feudal
decide hope call formal sense triplic form electric good revive allow infer air gyro adjust defend irritate replace depend adopt
homolog commune active angular effect bowdler probate rate cease control roll happy sky enjoy try fly spy die lie tie
ties pony caress cat feed agree plaster bleed motor sing conflate trouble size hop tan fall hiss fizz fail file geology theology
archaeology yes y by ivy syzygy toy news inning outing canning proceed exceed succeed howe big run swim beautiful careful useful
logical full dull ball bow box saw play say boy key queue eye axe ox aye yyy""".split()
SUFFIXES = """ s es ed ing er ers ly ally alli ation ations ational tional iveness fulness ousness ality iviti biliti fulli fully logi
logies able ible ability ance ence ant ent ement ment ion ions sion tion ous ive ize izer ization ized izing ist ism ate ator ical
icate ative alize iciti ness ful y ies ied ying eed eedly ing's""".split()


class NoSynonyms:
    def synsets(self, word):
        return []


def meteor_cases():
    """NLTK's METEOR without synonyms, and its stemmer, on words that nobody may have said before."""
    fixture = Fixture()
    forms = sorted({base[: len(base) - cut] + suffix for base in BASES for suffix in ['', *SUFFIXES] for cut in (0, 1)})
    forms = [form for form in forms if form][::5]
    stemmer = PorterStemmer()
    fixture.case({'name': 'stems', 'forms': forms, 'stems': [stemmer.stem(form) for form in forms]})
    random = generator('meteor')
    words = 'the cat sat on a mat sitting cats mats and dogs dog barked barking bark loudly loud don\'t stop stopped'.split()
    for name, repeats, longest in [('plain', 12, 12), ('long', 3, 60), ('nothing', 1, 0)]:
        line = lambda: ' '.join(random.choice(words, random.randint(0, longest + 1))) + random.choice(['', '.', ' !', '?'])
        guess = [line() for _ in range(repeats)]
        references = [[line() for _ in range(1 + i % 3)] for i in range(repeats)]
        # Nearly right ones too.
        guess[0] = references[0][0].upper()
        tokens = lambda text: re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())
        out = {}
        for key, options in {'usual': {}, 'other': dict(alpha=0.5, beta=1.5, gamma=0.2)}.items():
            scores = [meteor_score(list(map(tokens, r)), tokens(g), wordnet=NoSynonyms(), **options) for g, r in zip(guess, references)]
            out[key] = np.asarray(scores)
        fixture.case({'name': name, 'guess': guess, 'references': references}, out=doubles(out))
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main(
        {
            'train/metrics-values': value_cases,
            'train/metrics-auc': auc_cases,
            'train/metrics-text': text_cases,
            'train/metrics-meteor': meteor_cases,
        }
    )
