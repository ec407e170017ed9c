/** Right calls of what lib/vision writes by hand. */
import { add, exported, lib, many, of, options } from './define.js'
import { dense as f, list, made } from './values.js'

const picture = f([6, 8, 3], 'small', 'uint8')
const pictures = f([2, 6, 8, 3], 'small', 'uint8')
const planes = f([2, 3, 6, 8], 'unit')
const ppm = made('a PPM file in memory', () => Buffer.from('P3 2 2 9 1 2 3 4 5 6 7 8 9 9 8 7'))

exported(
  'decodeImage',
  of(options({ bytes: ppm, path: 'a.ppm' })),
  of(options({ bytes: ppm, path: null }), options({ mode: 'rgb' })),
)
exported(
  'resizeImage',
  of(picture, list([4, 5])),
  of(pictures, 4, options({ filter: 'lanczos', pillow: 13 })),
  of(picture, 4, options({ filter: 'nearest' })),
)
exported('resizeTensor', of(planes, list([4, 5])), of(planes, 4, options({ filter: 'bicubic', antialias: false })))
exported('centerCrop', of(picture, 4), of(planes, list([2, 3])))
exported('normalizeImage', of(planes, options({ mean: [0, 0.5, 1], std: [1, 2, 3] })))
exported('readImage', of(ppm), of(picture), of(ppm, options({ mode: 'rgb', maxPixels: 100 })))
exported(
  'preprocessImage',
  of(picture, options({ size: 4 })),
  of(many(picture, ppm), options({ size: 4, antialias: false, mean: [0, 0, 0], std: [1, 1, 1] })),
)
exported(
  'preprocessDepth',
  of(f([6, 8], 'unit'), options({ size: 4 })),
  of(f([6, 8], 'unit'), options({ size: 4, maxDepth: 0, minDepth: 0.1, scale: 10, antialias: false })),
)
exported(
  'preprocessVideo',
  of(pictures, options({ size: 4 })),
  of(pictures, options({ size: 4, antialias: true, flip: true })),
)
add(
  'clipImageOptions',
  // Whatever is there, there is no such folder.
  async (...args) =>
    lib.clipImageOptions!(...args).catch((error: Error) => {
      if (error.name !== 'ConfigError' || args[0] !== 'nowhere') throw error
    }),
  of('nowhere'),
)
exported('sampleFrames', of(20), of(3, options({ count: 5, method: 'segments' })))
add(
  'openVideo',
  // Whatever is there, there is no such file.
  async (...args) => {
    const path: unknown = args[0]
    if (path === 'nowhere.mp4') {
      return lib.openVideo!(...args).catch((error: Error) => {
        if (error.name !== 'DataError') throw error
      })
    }
    const video = await lib.openVideo!(...args)
    await video.close()
  },
  of('nowhere.mp4'),
  of('nowhere.mp4', options({ maxPixels: 100, threads: 1 })),
)
