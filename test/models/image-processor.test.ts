import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { ConfigError, clipImageOptions, preprocessImage, type Tensor, tensor } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'

interface Made {
  shape: number[]
  values: number[]
}
interface Case {
  key: string
  value: unknown
  with?: object
  made: Made | null
}

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-processor-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const { height, width, base, made, cases } = JSON.parse(
  readFileSync(fixturePath('models/image-processor-keys.json'), 'utf8'),
) as { height: number; width: number; base: object; made: Made; cases: Case[] }

const bytes = Uint8Array.from({ length: height * width * 3 }, (_, i) => Math.floor((i * 7) / 4) % 256)
const options = (config: object) => {
  writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify(config))
  return clipImageOptions(folder)
}
const sampled = async (config: object): Promise<Made> => {
  const picture = tensor(bytes, { dtype: 'uint8', shape: [height, width, 3] })
  const values: Tensor = await preprocessImage(picture, await options(config))
  const all = values.flatten().toArray() as number[]
  return { shape: [...values.shape], values: all.filter((_, i) => i % 37 === 0) }
}
/** A step of a byte behind the normalization is 1 / 255 / 0.26 at most. */
const isSame = (one: Made, other: Made) =>
  String(one.shape) === String(other.shape) &&
  one.values.length === other.values.length &&
  one.values.every((value, i) => Math.abs(value - (other.values[i] as number)) < 1e-4)

it('a folder without other values makes the pictures of transformers', async () => {
  const own = await sampled(base)
  expect(isSame(own, made), JSON.stringify([own, made])).toBe(true)
})

it.each(cases)(
  '$key: $value is used or refused by name, or changes nothing',
  async ({ key, value, made: theirs, with: more }) => {
    const camel = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
    let own: Made | Error
    try {
      own = await sampled({ ...base, ...more, [key]: value })
    } catch (error) {
      own = error as Error
    }
    if (own instanceof Error) {
      expect(own).toBeInstanceOf(ConfigError)
      const named = key === 'size' ? /size|cropSize/ : new RegExp(`expected ${camel} `)
      expect(own.message).toMatch(named)
      // These change nothing for a picture in RGB, or in a version of transformers that does not read them.
      const isHarmless = ['do_convert_rgb', 'default_to_square', 'do_pad', 'data_format'].includes(key)
      expect(theirs === null || !isSame(theirs, made) || isHarmless).toBe(true)
      return
    }
    expect(theirs).not.toBeNull()
    expect(isSame(own, theirs as Made), JSON.stringify([own, theirs])).toBe(true)
  },
)

it('a key that is not known is reported by name', async () => {
  const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  try {
    await options({ ...base, crop_sise: 3 })
    expect(String(warn.mock.calls[0]?.[0])).toContain('crop_sise')
  } finally {
    warn.mockRestore()
  }
  await expect(options({ ...base, do_normalize: 'yes' })).rejects.toThrow(/doNormalize/)
  await expect(clipImageOptions(3 as never)).rejects.toThrow(ConfigError)
  await expect(clipImageOptions(join(folder, 'nowhere'))).rejects.toThrow(/preprocessor_config.json/)
})

it('transformers 5 writes the same into processor_config.json', async () => {
  const other = mkdtempSync(join(folder, 'five-'))
  writeFileSync(join(other, 'processor_config.json'), JSON.stringify({ image_processor: base }))
  expect(await clipImageOptions(other)).toEqual(await options(base))
})
