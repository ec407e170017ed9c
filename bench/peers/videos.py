"""Ten films of three seconds of H.264, 640 x 360, in a folder: python3 videos.py FOLDER"""

import sys
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH, FRAMES = 360, 640, 75


def main(folder):
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.stack([127 + 60 * np.sin((x * (c + 1) + y * 2) / 40) + 60 * np.sin((x - 3 * y) / (25 + c)) for c in range(3)], -1)
    picture = picture.clip(0, 255).astype(np.uint8)
    grain = np.random.default_rng(1).integers(0, 12, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    for film in range(10):
        with av.open(str(folder / f"{film}.mp4"), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for i in range(FRAMES):
                moved = np.roll(picture, (film + i, (film + 2) * i), (0, 1)) // 12 * 11 + np.roll(grain, 7 * i, 1)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(moved.astype(np.uint8), format="rgb24")))
            out.mux(stream.encode())


main(Path(sys.argv[1]))
