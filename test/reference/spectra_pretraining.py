"""Pickles in the form of SPECTRA's published pre-training data, `transForV4.pkl`, of protocols 2, 4 and 5."""

import argparse
import pickle
import sys

from common import FIXTURES

# The first entry is the one of the data's description; then an entry with words that cannot be used, one whose link leads
# nowhere, and one without words.
ENTRIES = [
    ['show/a0.npy', [0, 405, 18, 627, 2], ["it's", 1, 3, 0, 8000], ['the', 3, 4, 6400, 9600], -1],
    ['show/a1.npy', [0, 627, 405, 18, 2], ['the', 1, 2, 0, 1600], ['', 2, 2, 1600, 3200], ['it', 2, 4, 3200, 1600], 0],
    ['show/b0.npy', [0, 627, 2], ['the', 1, 2, 0, 1600], 9],
    ['show/b1.npy', [0, 2], 1],
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true')
    check = parser.parse_args().check
    folder = FIXTURES / 'spectra'
    folder.mkdir(exist_ok=True)
    for protocol in (2, 4, 5):
        path = folder / f'pretraining-{protocol}.pkl'
        content = pickle.dumps(ENTRIES, protocol=protocol)
        if not check:
            path.write_bytes(content)
        elif path.read_bytes() != content:
            sys.exit(f'{path} is not what this script writes')


if __name__ == '__main__':
    main()
