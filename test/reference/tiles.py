"""test/fixtures/vision/tiles.json: the order of tile grids that CPython's sets give, and the grids of 500 random sizes, by the
rule of the InternVL report (of the sizes a few have exact ties); tile-pixels.safetensors: tiles that Pillow cut.
"""

import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from common import FIXTURES, generator


def grids(most, least=1):
    found = set(
        (i, j)
        for n in range(least, most + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if least <= i * j <= most
    )
    return sorted(found, key=lambda grid: grid[0] * grid[1])


def chosen(width, height, most, size=448):
    best, smallest = (1, 1), float('inf')
    for grid in grids(most):
        distance = abs(width / height - grid[0] / grid[1])
        if distance < smallest:
            best, smallest = grid, distance
        elif distance == smallest and width * height > 0.5 * size * size * grid[0] * grid[1]:
            best = grid
    return best


def main():
    random = generator('tiles')
    sizes = []
    for i in range(500):
        width, height = (int(x) for x in random.randint(1, 3000, 2))
        if i % 5 == 0:  # ratios between those of two grids
            width, height = int(random.randint(1, 40)) * 32, int(random.randint(1, 40)) * 32
        most = int(random.randint(1, 13))
        sizes.append([width, height, most, *chosen(width, height, most)])
    orders = {str(most): ' '.join(f'{i}x{j}' for i, j in grids(most)) for most in [*range(1, 13), 18, 24, 40]}
    orders['3-9'] = ' '.join(f'{i}x{j}' for i, j in grids(9, 3))
    path = FIXTURES / 'vision/tiles.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'orders': orders, 'sizes': sizes}) + '\n')

    pixels()


def pixels(size=16):
    tensors = {}
    for width, height, most in [(50, 30, 12), (20, 20, 12), (24, 40, 6), (16, 40, 1)]:
        name = f'{width}x{height}-{most}'
        picture = np.asarray(generator(name).randint(0, 256, (height, width, 3)), np.uint8)
        image = Image.fromarray(picture)
        columns, rows = chosen(width, height, most, size)
        whole = image.resize((size * columns, size * rows))
        boxes = [(i * size, j * size, (i + 1) * size, (j + 1) * size) for j in range(rows) for i in range(columns)]
        tiles = [whole.crop(box) for box in boxes]
        if len(tiles) > 1:
            tiles.append(image.resize((size, size)))
        tensors[f'{name}/picture'] = torch.from_numpy(picture)
        tensors[f'{name}/tiles'] = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles]))
    save_file(tensors, FIXTURES / 'vision/tile-pixels.safetensors')


if __name__ == '__main__':
    main()
