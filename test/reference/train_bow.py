"""The baseline that examples/custom-loop.ts prints: bag-of-words logistic regression on the same split.

Sentences of npm's `sentiment` 5.0.2 (imdb, yelp, amazon; Kotzias et al. 2015, "From Group to Individual Labels using
Deep Features"): 3,000, half of them positive. The example holds out every fifth: the split of rows 4, 9, 14, ...

    python test/reference/train_bow.py

Prints, with the numbers of scikit-learn 1.9.1 and, measured beside them, the example's own with seeds 0 and 1:
    held out from row 0: accuracy 0.8467        0.8350 0.8350
    held out from row 1: accuracy 0.8083        0.8367 0.8433
    held out from row 2: accuracy 0.8467        0.8717 0.8550
    held out from row 3: accuracy 0.8017        0.8200 0.8150
    held out from row 4: accuracy 0.8017        0.8167 0.8233
    mean 0.8210                                 0.8352
"""

import json
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

FILES = Path(__file__).resolve().parents[2] / 'node_modules/sentiment/test/fixtures'

rows = [row for name in ('imdb', 'yelp', 'amazon') for row in json.loads((FILES / f'{name}.json').read_text())]
rows = [row for row in rows if row['text']]


def accuracy(start):
    training = [row for i, row in enumerate(rows) if i % 5 != start]
    held_out = [row for i, row in enumerate(rows) if i % 5 == start]
    words = CountVectorizer()
    model = LogisticRegression(max_iter=1000)
    model.fit(words.fit_transform([row['text'] for row in training]), [row['class'] for row in training])
    return model.score(words.transform([row['text'] for row in held_out]), [row['class'] for row in held_out])


scores = [accuracy(start) for start in range(5)]
for start, score in enumerate(scores):
    print(f'held out from row {start}: accuracy {score:.4f}')
print(f'mean {sum(scores) / 5:.4f}')
