import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32, deflateSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import { MemorySource, Place } from '../../lib/files/byte-source.js'
import { ConfigError, DataError, memoryStats, ops, readImage, type Tensor, tensor, zeros } from '../../lib/index.js'
import { pixelChunks } from '../../lib/vision/coded-image.js'
import { type Fixture, fixture, settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-image-'))
afterAll(() => rmSync(folder, { recursive: true }))

const bytesOf = (file: Fixture<unknown>, name: string) => file.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
const differences = (a: Tensor, b: Tensor) => a.int().sub(b.int()).abs()

describe('pixels are those of Pillow', async () => {
  const file = await fixture<{ name: string }>('vision/images')
  test.each(file.cases)('$name', async ({ name }) => {
    const wanted = file.tensors[`${name}/out/rgb`]!
    const read = await readImage(bytesOf(file, name))
    expect([read.shape, read.dtype]).toEqual([wanted.shape, 'uint8'])
    // JPEG's and lossy WebP's decoders may round otherwise in another build; so far they do not either.
    const lossy = /^jpeg|^webp$/.test(name)
    expect(differences(read, wanted).max().item()).toBeLessThanOrEqual(lossy ? 1 : 0)
    const path = join(folder, `${name}.txt`)
    writeFileSync(path, bytesOf(file, name))
    expect(ops.equal(await readImage(path), read)).toBe(true)
  })
})

describe('so are those of BMP, GIF, TIFF and AVIF', async () => {
  const file = await fixture<{ name: string }>('vision/more-images')
  const of = (name: string) => readImage(bytesOf(file, name))
  const pillow = (name: string) => file.tensors[`${name}/out/rgb`]!
  test.each(file.cases)('$name', async ({ name }) => {
    const read = await of(name)
    expect([read.shape, read.dtype]).toEqual([pillow(name).shape, 'uint8'])
    // YCbCr of 4:4:4 becomes RGB in another rounding than Pillow's.
    expect(differences(read, pillow(name)).max().item()).toBeLessThanOrEqual(/^avif-(444|alpha)/.test(name) ? 1 : 0)
  })

  test('but for 16-bit gray, whose upper bits stay, and what is transparent in a GIF, which is black', async () => {
    const values = file.tensors['tiff-16/out/values']!
    expect(ops.equal((await of('tiff-16')).select(-1, 1).int(), values.floorDivide(256).int())).toBe(true)
    expect(ops.equal(await readImage(bytesOf(file, 'tiff-16'), { mode: 'depth' }), values)).toBe(true)
    const clear = await of('gif-clear')
    const changed = differences(clear, pillow('gif-clear')).amax(-1).gt(0)
    expect(changed.any().item()).toBe(true)
    expect(clear.amax(-1).mul(changed).max().item()).toBe(0)
  })

  test('and AVIF with colors at half resolution, whose brightness is the same', async () => {
    const gray = (image: Tensor) => image.float().matmul(tensor([0.299, 0.587, 0.114]))
    const error = gray(await of('avif-420'))
      .sub(gray(pillow('avif-420')))
      .abs()
    // Each color is rounded once: half a step, and one more where it is clipped.
    expect(error.max().item()).toBeLessThanOrEqual(1.5)
  })

  test('what would have other numbers is refused', async () => {
    await expect(of('tiff-ycbcr')).rejects.toThrow(/TIFF in YCbCr without JPEG compression/)
    await expect(readImage(bytesOf(file, 'tiff-float'), { mode: 'depth' })).rejects.toThrow(
      /expected samples of type uchar or ushort, got float/,
    )
    const heic = Buffer.concat([Buffer.of(0, 0, 0, 20), Buffer.from('ftypheic\0\0\0\0heic'), Buffer.alloc(40)])
    await expect(readImage(heic)).rejects.toThrow(/expected JPEG.* got an unknown format/)
  })

  test.each(file.cases.filter(({ name }) => name.startsWith('bmp')))('$name, cut off or broken', async ({ name }) => {
    const bytes = bytesOf(file, name)
    for (const length of [2, 10, 20, 50, bytes.length - 1]) {
      const cut = readImage(bytes.subarray(0, length))
      // The last two bytes of runs say that they end.
      if (length === bytes.length - 1 && name.includes('runs')) await cut.catch(() => {})
      else await expect(cut, `${length}`).rejects.toThrow(DataError)
    }
    const broken = (at: number, value: number) => {
      const copy = Buffer.from(bytes)
      copy.writeUInt32LE(value, at)
      return readImage(copy)
    }
    await expect(broken(10, 7)).rejects.toThrow(/offset of pixels: expected .* got 7/)
    await expect(broken(14, 39)).rejects.toThrow(/BMP header: expected 12 or 40 to 256 bytes, got 39/)
    await expect(broken(30, 9)).rejects.toThrow(/compression 9/)
    await expect(broken(18, 0x7fffffff)).rejects.toThrow(/expected at most 178956970 pixels, got/)
    await expect(broken(18, 0)).rejects.toThrow(/expected an image with pixels, got 0 ×/)
  })
})

describe('a BMP of one pixel', () => {
  /** With the header BITMAPINFOHEADER and what is between it and the pixel. */
  function bmp({ bits = 32, compression = 3, colors = 0, between = Buffer.alloc(0), pixel = [0x33, 0x22, 0x11, 0] }) {
    const head = Buffer.alloc(54)
    head.write('BM', 0, 'latin1')
    head.writeUInt32LE(54 + between.length, 10)
    head.writeUInt32LE(40, 14)
    head.writeUInt32LE(1, 18)
    head.writeUInt32LE(1, 22)
    head.writeUInt16LE(1, 26)
    head.writeUInt16LE(bits, 28)
    head.writeUInt32LE(compression, 30)
    head.writeUInt32LE(colors, 46)
    return Buffer.concat([head, between, Buffer.from(pixel)])
  }
  const masks = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer)
  const plain = masks(0xff0000, 0xff00, 0xff)

  test('with masks has its bytes where they say', async () => {
    expect((await readImage(bmp({ between: plain }))).toArray()).toEqual([[[0x11, 0x22, 0x33]]])
    expect((await readImage(bmp({ between: masks(0xff, 0xff00, 0xff0000) }))).toArray()).toEqual([[[0x33, 0x22, 0x11]]])
  })

  test('is cut off in its masks', async () => {
    for (let length = 54; length < 66; length += 1) {
      const cut = readImage(bmp({ between: plain }).subarray(0, length))
      await expect(cut, `${length}`).rejects.toMatchObject({ name: 'DataError', byte: 54 })
      await expect(cut, `${length}`).rejects.toThrow(/ends within the BMP color masks/)
    }
  })

  test.each([
    ['of nothing', 0, '0x0'],
    ['of nine bits', 0x1ff, '0x1ff'],
    ['with a hole', 0x505, '0x505'],
  ])('has a mask %s', async (_, mask, shown) => {
    for (const place of [0, 1, 2]) {
      const values = [0xff0000, 0xff00, 0xff]
      values[place] = mask
      await expect(readImage(bmp({ between: masks(...values) }))).rejects.toThrow(
        `color mask: expected 1 to 8 contiguous bits, got ${shown}`,
      )
    }
  })

  test('has a palette that is not there', async () => {
    const indexed = (colors: number, there: number) =>
      readImage(bmp({ bits: 8, compression: 0, colors, between: Buffer.alloc(4 * there), pixel: [0, 0, 0, 0] }))
    expect((await indexed(2, 2)).toArray()).toEqual([[[0, 0, 0]]])
    await expect(indexed(257, 257)).rejects.toThrow(/palette: expected at most 256 complete colors, got 257/)
    await expect(indexed(0, 2)).rejects.toThrow(/palette: expected at most 256 complete colors, got 256/)
    await expect(indexed(4, 2)).rejects.toThrow(/palette: expected at most 256 complete colors, got 4/)
  })
})

describe('depths are the numbers in the file', async () => {
  const file = await fixture<{ name: string }>('vision/depths')
  test.each(file.cases)('$name', async ({ name }) => {
    const read = await readImage(bytesOf(file, name), { mode: 'depth' })
    expect(read.dtype).toBe('int32')
    expect(ops.equal(read, file.tensors[`${name}/out/values`]!)).toBe(true)
  })

  test('of which a picture in RGB is made of the upper 8 bits', async () => {
    const rgb = await readImage(bytesOf(file, 'png-16'))
    const values = file.tensors['png-16/out/values']!
    expect(rgb.shape).toEqual([...values.shape, 3])
    expect(ops.equal(rgb.select(-1, 1).int(), values.floorDivide(256).int())).toBe(true)
  })

  test('colours are refused', async () => {
    const { tensors } = await fixture('vision/images')
    const coloured = tensors['png-rgb/file/bytes']!.dataSync() as Uint8Array
    await expect(readImage(coloured, { mode: 'depth' })).rejects.toThrow(
      /expected a depth image with 1 channel, got 3 channels/,
    )
    await expect(readImage(Buffer.from('P3 1 1 9 1 2 3'), { mode: 'depth' })).rejects.toThrow(/3 channels/)
  })
})

describe('a PNG reaches its decoder without what no pixel depends on', async () => {
  const { tensors, cases } = await fixture<{ name: string }>('vision/images')
  const chunk = (name: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(name, 'latin1'), data])
    const frame = Buffer.alloc(8 + body.length)
    frame.writeUInt32BE(data.length, 0)
    body.copy(frame, 4)
    frame.writeUInt32BE(crc32(body), 4 + body.length)
    return frame
  }
  const source = (bytes: Uint8Array) => new MemorySource(bytes, new Place('x.png'))
  /** 16 MB of zeros in 16 kB. */
  const packed = deflateSync(Buffer.alloc(1 << 24))
  const bombs = [
    chunk('iCCP', Buffer.concat([Buffer.from('profile\0\0'), packed])),
    chunk('zTXt', Buffer.concat([Buffer.from('text\0\0'), packed])),
    chunk('iTXt', Buffer.concat([Buffer.from('text\0\x01\0\0\0'), packed])),
    chunk('tEXt', Buffer.from('key\0value')),
  ]

  test.each(cases.filter(({ name }) => name.startsWith('png')))('$name', async ({ name }) => {
    const bytes = Buffer.from(tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array)
    const loaded = Buffer.concat([bytes.subarray(0, 33), ...bombs, bytes.subarray(33)])
    const kept = pixelChunks(source(loaded), loaded)
    for (const bomb of ['iCCP', 'zTXt', 'iTXt', 'tEXt', 'eXIf', 'gAMA']) expect(kept.includes(bomb)).toBe(false)
    expect(kept.length).toBeLessThanOrEqual(bytes.length)
    expect(ops.equal(await readImage(loaded), tensors[`${name}/out/rgb`]!)).toBe(true)
  })

  test('and with few chunks', async () => {
    const bytes = Buffer.from(tensors['png-rgb/file/bytes']!.dataSync() as Uint8Array)
    const many = Buffer.concat([bytes.subarray(0, 33), Buffer.alloc(12 * (1 << 18)), bytes.subarray(33)])
    await expect(readImage(many)).rejects.toThrow(/at most 262144 chunks/)
  })
})

test('bytes whose memory went to another thread are refused', async () => {
  const buffer = new ArrayBuffer(64)
  structuredClone(buffer, { transfer: [buffer] })
  await expect(readImage(buffer)).rejects.toThrow(ConfigError)
})

test('raw pixels and tensors', async () => {
  const data = Uint8Array.from({ length: 24 }, (_, i) => i)
  expect((await readImage({ data, width: 4, height: 2 })).toArray()).toEqual(
    tensor(data, { shape: [2, 4, 3] }).toArray(),
  )
  const clear = await readImage({ data: new Uint8ClampedArray(data), width: 3, height: 2, channels: 4 })
  expect(clear.toArray()).toEqual([
    [
      [0, 1, 2],
      [4, 5, 6],
      [8, 9, 10],
    ],
    [
      [12, 13, 14],
      [16, 17, 18],
      [20, 21, 22],
    ],
  ])
  const grey = await readImage({ data, width: 12, height: 2, channels: 1 })
  expect(grey.select(-1, 2).toArray()).toEqual(tensor(data, { shape: [2, 12] }).toArray())
  const own = zeros([2, 3, 1], { dtype: 'uint8' })
  expect((await readImage(own)).shape).toEqual([2, 3, 3])
  await expect(readImage({ data, width: 4, height: 3 })).rejects.toThrow(/data to be 4 × 3 × 3 bytes/)
  await expect(readImage({ data, width: 4, height: 2, channels: 2 as never })).rejects.toThrow(
    /channels to be 1, 3 or 4/,
  )
  await expect(readImage(zeros([2, 2, 2, 3], { dtype: 'uint8' }))).rejects.toThrow(/one image/)
  await expect(readImage(7 as never)).rejects.toThrow(/image to be a path, the bytes/)
  await expect(readImage(own, { mode: 'bgr' as never })).rejects.toThrow(/'rgb', 'depth'/)
  await expect(readImage(own, { rotate: true } as never)).rejects.toThrow(/expected a known option, got 'rotate'/)
})

describe('what cannot be read', async () => {
  const { tensors, cases } = await fixture<{ name: string }>('vision/images')
  const whole = (name: string) => tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array
  // What is lossless says exactly where it ends; JPEG's decoder and WebP's say that something is missing.
  const coded = cases.map(({ name }) => name).filter((name) => !/few|text/.test(name))

  test.each(coded)('%s, cut off', async (name) => {
    const bytes = whole(name)
    for (const share of [0.1, 0.5, 0.9]) {
      const cut = bytes.subarray(0, Math.floor(bytes.length * share))
      // The last tenth of an animation is its second picture, of others it may be what is no pixel.
      if (share === 0.9 && /animated|clear|turned|profile|one/.test(name)) continue
      await expect(readImage(cut), `${share}`).rejects.toThrow(DataError)
    }
  })

  test('says which file, and why', async () => {
    const path = join(folder, 'talk.png')
    writeFileSync(path, 'Hello, this is text.')
    await expect(readImage(path)).rejects.toMatchObject({ code: 'ERR_DATA', file: path })
    await expect(readImage(path)).rejects.toThrow(
      /expected JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, PPM or PGM, got an unknown format/,
    )
    await expect(readImage(join(folder, 'nowhere.png'))).rejects.toThrow(/nowhere\.png: it cannot be opened/)
    await expect(readImage(folder)).rejects.toThrow(/expected a regular file/)
    await expect(readImage(new Uint8Array(0))).rejects.toThrow(/the image in memory: expected JPEG.* got an empty file/)
    await expect(readImage(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'))).rejects.toThrow(
      /got an unknown format/,
    )
    await expect(readImage(whole('png-rgb').slice(0, 60))).rejects.toThrow(/the png decoder failed/)
  })

  test.each([
    ['P6 2 2 255\n', /12 bytes are missing/],
    ['P6 2 x 255\n', /height: expected a number, got "x"/],
    ['P6 2 2 70000\n', /maximum: expected 1 to 65535, got 70000/],
    ['P6 0 2 255\n', /expected an image with pixels, got 0 × 2/],
    ['P6 100000 100000 255\n', /at most 178956970 pixels, got 100000 × 100000/],
    ['P2 2 2 9 1 2 3', /ends before its last sample|ends before sample 3/],
    ['P2 2 2 9 1 2 3     ', /ends before sample 3/],
    ['P2 2 2 9 1 2 3 10', /sample 3: expected a number from 0 to 9, got "10"/],
    ['P5', /expected JPEG.* got an unknown format/],
    ['P5 ', /width: expected a number, got ""/],
  ])('%j', async (text, message) => {
    await expect(readImage(Buffer.from(text))).rejects.toThrow(message)
  })

  test('is too large', async () => {
    await expect(readImage(whole('png-rgb'), { maxPixels: 38 * 29 - 1 })).rejects.toThrow(
      /at most 1101 pixels, got 38 × 29. Set maxPixels/,
    )
    expect((await readImage(whole('png-rgb'), { maxPixels: 38 * 29 })).shape).toEqual([29, 38, 3])
    // A head that promises 30,000 × 30,000.
    const png = Uint8Array.from(whole('png-rgb'))
    png.set([0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30], 16)
    await expect(readImage(png)).rejects.toThrow(DataError)
  })

  test('is not waited for after an abort', async () => {
    await expect(readImage(whole('png-rgb'), { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow(
      'enough',
    )
    const controller = new AbortController()
    const reading = readImage(whole('png-rgb'), { signal: controller.signal })
    controller.abort(new Error('enough'))
    await expect(reading).rejects.toThrow('enough')
  })
})

test('no temporaries stay', async () => {
  const { tensors } = await fixture('vision/images')
  const bytes = tensors['png-grey/file/bytes']!.dataSync() as Uint8Array
  await readImage(bytes)
  const before = await settledTensors()
  const read = await readImage(bytes)
  expect(memoryStats().liveTensors - before).toBe(1)
  expect(read.shape).toEqual([19, 26, 3])
})
