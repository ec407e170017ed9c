"""The baseline that examples/custom-loop.ts prints: bag-of-words logistic regression on the same split.

Sentences of npm's `sentiment` 5.0.2 (imdb, yelp, amazon; Kotzias et al. 2015, "From Group to Individual Labels using
Deep Features"): 3,000, half of them positive. Every fifth is held out.

    python test/reference/train_bow.py

Prints (scikit-learn 1.9.1): see BASELINE in the example.
"""

import json
from pathlib import Path

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

FILES = Path(__file__).resolve().parents[2] / 'node_modules/sentiment/test/fixtures'

rows = [row for name in ('imdb', 'yelp', 'amazon') for row in json.loads((FILES / f'{name}.json').read_text())]
rows = [row for row in rows if row['text']]
held_out = [row for i, row in enumerate(rows) if i % 5 == 0]
training = [row for i, row in enumerate(rows) if i % 5 != 0]
words = CountVectorizer()
model = LogisticRegression(max_iter=1000)
model.fit(words.fit_transform([row['text'] for row in training]), [row['class'] for row in training])
accuracy = model.score(words.transform([row['text'] for row in held_out]), [row['class'] for row in held_out])
print(f'{len(training)} training, {len(held_out)} held out, {len(words.vocabulary_)} words: accuracy {accuracy:.4f}')
