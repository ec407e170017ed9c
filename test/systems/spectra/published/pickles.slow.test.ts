import { execFileSync, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { type PythonCase, pythonCases } from '../../../files/python-values.js'
import { numbers, settledTensors } from '../../../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-spectra-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const cases = pythonCases('spectra-pickles')

let files = 0
let home = ''
beforeEach(() => {
  files += 1
  home = join(folder, String(files))
})

function put(name: string, bytes: Uint8Array): void {
  mkdirSync(dirname(join(home, name)), { recursive: true })
  writeFileSync(join(home, name), bytes)
}

const named = (name: string) => cases.find((one) => one.name === name) as PythonCase
async function read(one: PythonCase, options: Partial<spectra.ReadSpectraPicklesOptions> = {}) {
  put(`${one.task}/train.pkl`, one.file)
  const task = one.task as spectra.SpectraTaskName
  const { splits, files } = await spectra.readSpectraPickles(home, { task, splits: ['train'], ...options })
  return { samples: splits.train!, layout: files[0]!.layout }
}

/** The elements of an array as Python described it. */
function floats(value: unknown): number[] {
  if (Array.isArray(value)) return value.map((item) => Number((item as { f: string }).f))
  const { dtype, bytes } = (value as { t: { dtype: string; bytes: string } }).t
  const raw = Buffer.from(bytes, 'base64')
  return vt.scope(() => numbers(vt.tensor(raw, { dtype: dtype as vt.DType })).map(Number))
}
const plain = async (audio: spectra.SpectraAudio | undefined) => {
  if (audio === null || audio === undefined) return audio
  return numbers(vt.isTensor(audio) ? audio : await audio.read()).map(Number)
}
const logical = async (samples: readonly spectra.SpectraSample[]) =>
  Promise.all(
    samples.map(async ({ audio, historyAudio, inputIds, turnIds, label }) => {
      return { audio: await plain(audio), history: await plain(historyAudio), inputIds, turnIds, label }
    }),
  )

describe('published pickles', () => {
  it.each(cases.map((one) => [one.name, one]))('reads %s with equal arrays', (_, one) =>
    vt.scope(async () => {
      const { samples, layout } = await read(one)
      expect(layout).toBe(one.layout)
      const value = one.value as unknown[][]
      const isPair = layout.startsWith('B')
      const rows = (isPair ? value[1] : value) as unknown[][]
      expect(samples.length).toBe(rows.length)
      if (isPair) return // compared with layout A below
      for (const [i, row] of rows.entries()) {
        const expected = floats(row[0])
        expect(await plain(samples[i]!.audio)).toEqual(
          expected.map((x) => (Array.isArray(row[0]) ? Math.fround(x) : x)),
        )
        const label = row[2] as { f?: string; i?: string; t?: unknown }
        expect(samples[i]!.label).toBe(label.t ? floats(label)[0] : Number(label.f ?? label.i))
      }
    }),
  )

  it('keeps the dtype, as float16 and float64', () =>
    vt.scope(async () => {
      const dtype = async (name: string) => {
        home = join(folder, `dtype-${name}`)
        return ((await read(named(`A of ${name}, protocol 5`))).samples[0]!.audio as vt.Tensor).dtype
      }
      expect([await dtype('f2'), await dtype('f8'), await dtype('>f4')]).toEqual(['float16', 'float64', 'float32'])
    }))

  it('gives the same samples from all four layouts', () =>
    vt.scope(async () => {
      const made: Awaited<ReturnType<typeof logical>>[] = []
      for (const layout of spectra.SPECTRA_LAYOUTS) {
        home = join(folder, `layout-${layout}`)
        made.push(await logical((await read(named(`${layout}, protocol 4`))).samples))
      }
      expect(made[0]!.map(({ history }) => history === null)).toEqual([true, false, false, true])
      expect(made[0]![1]!.history).toEqual(made[0]![0]!.audio)
      // <s> of the current text is gone, that of the history is first; 6 tokens of history, then 5 of 6.
      expect(made[0]![1]!.turnIds).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
      expect(made[0]![0]!.turnIds).toEqual([1, 1, 1, 1, 1])
      for (const other of made.slice(1)) expect(other).toEqual(made[0])
    }))

  it('shares the clips of layout B, and makes no copy of arrays', () =>
    vt.scope(async () => {
      const before = await settledTensors()
      const { samples } = await read(named('B, protocol 5'))
      expect(samples[1]!.historyAudio).toBe(samples[0]!.audio)
      expect(vt.memoryStats().liveTensors - before).toBe(4)
    }))

  it('reads lazily, with the same samples', () =>
    vt.scope(async () => {
      const { samples } = await read(named('A, protocol 4'), { arrays: 'lazy' })
      expect(vt.isTensor(samples[0]!.audio)).toBe(false)
      home = join(folder, 'not-lazy')
      expect(await logical(samples)).toEqual(await logical((await read(named('A, protocol 4'))).samples))
    }))

  it('reads all splits out of .tgz, .tar and .zip in one pass', () =>
    vt.scope(async () => {
      for (const split of ['valid', 'test', 'train']) put(`iemocap/${split}.pkl`, named('A, protocol 4').file)
      put('mosi/train.pkl', named('A of three fields, protocol 5').file)
      execFileSync('tar', ['-czf', 'iemocap.tgz', 'mosi', 'iemocap'], { cwd: home })
      execFileSync('tar', ['-cf', 'plain.tar', './iemocap'], { cwd: home })
      const whole = await spectra.readSpectraPickles(home, { task: 'iemocap' })
      for (const file of ['iemocap.tgz', 'plain.tar']) {
        const packed = await spectra.readSpectraPickles(join(home, file), { task: 'iemocap' })
        for (const split of spectra.SPECTRA_SPLITS) {
          expect(await logical(packed.splits[split]!)).toEqual(await logical(whole.splits[split]!))
        }
      }
      rmSync(join(home, 'iemocap'), { recursive: true })
      const found = await spectra.readSpectraPickles(home, { task: 'iemocap' })
      expect(found.files.map(({ layout }) => layout)).toEqual(['A', 'A', 'A'])
      await expect(spectra.readSpectraPickles(join(home, 'plain.tar'), { task: 'mosi' })).rejects.toThrow(
        /expected mosi\/train.pkl/,
      )
    }))

  it('reads long arrays that arrive packed', () =>
    vt.scope(async () => {
      put('mosi/train.pkl', named('long clips, protocol 5').file)
      execFileSync('tar', ['-czf', 'mosi.tgz', 'mosi'], { cwd: home })
      const options = { task: 'mosi', splits: ['train'] } as const
      const whole = await spectra.readSpectraPickles(home, options)
      const packed = await spectra.readSpectraPickles(join(home, 'mosi.tgz'), options)
      expect(await logical(packed.splits.train!)).toEqual(await logical(whole.splits.train!))
    }))
})

/** A pickle of protocol 0 of lists and numbers, which is enough to lie with. */
function pickled(value: unknown): Buffer {
  const write = (item: unknown): string =>
    Array.isArray(item)
      ? `(${item.map(write).join('')}l`
      : item === null
        ? 'N'
        : Number.isInteger(item)
          ? `I${item}\n`
          : `F${item}\n`
  return Buffer.from(`${write(value)}.`)
}

describe('doubtful files', () => {
  const clip = [0.5, 0.25, -0.5]
  const readValue = async (value: unknown, options: Partial<spectra.ReadSpectraPicklesOptions> = {}) => {
    put('mosi/train.pkl', pickled(value))
    return vt.scope(() => spectra.readSpectraPickles(home, { task: 'mosi', splits: ['train'], ...options }))
  }

  it.each([
    ['no list', 5.5, /expected a list, got/],
    ['no samples', [], /expected at least one sample/],
    ['two fields', [[clip, [0, 2]]], /sample 0: expected a list of three to five fields/],
    [
      'unequal fields',
      [
        [clip, [0, 2], 1],
        [clip, [0, 2], 1, [1, 1]],
      ],
      /got 4 in sample 1 and 3 in sample 0/,
    ],
    ['turn ids that are too few', [[clip, [0, 7, 2], 1, [1, 1]]], /expected fields of a known layout/],
    ['ids of history before its audio', [[clip, [0, 2], 1, [0, 9, 2], clip]], /expected fields of a known layout/],
    [
      'two orders in one file',
      [
        [clip, [0, 2], 1, [1, 1], clip],
        [clip, [0, 2], 1, clip, [0, 9, 2]],
      ],
      /expected fields of a known layout, .*not A by sample 1, not A-readme by sample 0/,
    ],
    ['empty audio', [[[], [0, 2], 1]], /sample 0: audio: expected samples, got none/],
    ['no ids', [[clip, [], 1]], /sample 0: token ids: expected at least one/],
    ['ids that are fractions', [[clip, [0, 1.5], 1]], /token ids: expected a list of integers/],
    ['a label that is a list', [[clip, [0, 2], [1, 2]]], /label: expected a finite number/],
    ['a clip that is not there', [[clip], [[0, [0, 2], 1, 3, []]]], /expected a clip index below 1, got 3/],
  ])('refuses %s', async (_, value, message) => {
    const failure = await readValue(value).catch((error) => error)
    expect(failure).toBeInstanceOf(vt.DataError)
    expect(failure.message).toMatch(message)
    expect(failure.message).toContain('train.pkl')
  })

  it('takes the layout that it is told', async () => {
    // A history of silence, in the README's order, which looks like turn ids.
    const value = [[clip, [0, 7, 2], 1, [0, 0, 0], [0, 9, 2]]]
    await expect(readValue(value)).rejects.toThrow(/expected fields of a known layout/)
    const { splits, files } = await readValue(value, { layout: 'A-readme' })
    expect(files[0]!.layout).toBe('A-readme')
    expect(splits.train![0]!.inputIds).toEqual([0, 9, 2, 7, 2])
    await expect(readValue(value, { layout: 'B' })).rejects.toThrow(/expected layout B, got a list of samples/)
    await expect(readValue(value, { layout: 'C' as 'A' })).rejects.toThrow(vt.ConfigError)
  })

  it('refuses class numbers that the task has not, and splits that differ', async () => {
    put('iemocap/train.pkl', pickled([[clip, [0, 2], 6]]))
    await expect(spectra.readSpectraPickles(home, { task: 'iemocap', splits: ['train'] })).rejects.toThrow(
      /from 0 to 5/,
    )
    put('mosi/train.pkl', pickled([[clip, [0, 2], 1]]))
    put('mosi/test.pkl', pickled([[clip, [0, 2], 1, [1, 1]]]))
    const both = vt.scope(() => spectra.readSpectraPickles(home, { task: 'mosi', splits: ['train', 'test'] }))
    await expect(both).rejects.toThrow(/expected turn ids and history audio in all files or in none/)
    await expect(spectra.readSpectraPickles(home, { task: 'mosi' })).rejects.toThrow(/expected mosi\/ with train.pkl/)
  })

  it('leaves nothing behind when it fails', async () => {
    const before = await settledTensors()
    await expect(
      readValue([
        [clip, [0, 2], 1],
        [[], [0, 2], 1],
      ]),
    ).rejects.toThrow(vt.DataError)
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe('memory', () => {
  const root = fileURLToPath(new URL('../../../..', import.meta.url))
  // Opt-in: 1 GB takes a minute and 3 GB of disk. Measured there: .pkl 33 MB, lazy 25 MB, .tgz 68 MB.
  const megabytes = Number(process.env.VOXTORCH_SPECTRA_PICKLE_MB ?? 192)
  const most = 150

  it('stays small beside the arrays themselves, unpacked, lazy and packed', () => {
    const clips = Math.floor((megabytes * 2 ** 20) / 640_000)
    const head = (text: string) => Buffer.from(text, 'latin1')
    const start =
      "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I160000\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nB"
    const size = Buffer.alloc(4)
    size.writeUInt32LE(640_000)
    put('mosi/train.pkl', head('\x80\x03('))
    const file = join(home, 'mosi/train.pkl')
    for (let i = 0; i < clips; i += 1) {
      // Noise: what is easily packed would be taken for a bomb.
      appendFileSync(
        file,
        Buffer.concat([head(`(${start}`), size, randomBytes(640_000), head('tb(I0\nI5\nI2\nlF0.5\nl')]),
      )
    }
    appendFileSync(file, head('l.'))
    execFileSync('tar', ['-czf', 'mosi.tgz', 'mosi'], { cwd: home })
    const script = fileURLToPath(new URL('pickle-memory.mjs', import.meta.url))
    for (const args of [[home], [home, 'lazy'], [join(home, 'mosi.tgz')]]) {
      const { stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, ...args], {
        cwd: root,
        encoding: 'utf8',
      })
      const found = JSON.parse(stdout || JSON.stringify({ error: stderr }))
      expect(found).toMatchObject({ samples: clips, arrays: Math.round((clips * 640_000) / 2 ** 20) })
      expect(found.peakAbove, args.join(' ')).toBeLessThan(most)
    }
  })
})
