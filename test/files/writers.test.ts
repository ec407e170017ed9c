import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeAtomicallySync } from '../../lib/base/atomic.js'
import { saveGguf, saveNpy, saveNpz } from '../../lib/files/index.js'
import {
  CheckpointError,
  DataError,
  DecoderLM,
  Linear,
  SummaryWriter,
  savePretrained,
  saveSafetensors,
  Trainer,
  tensor,
  writeJson,
  writeJsonl,
  writeWav,
} from '../../lib/index.js'

// Each way in which the library writes a file: natively, in JavaScript, and in JavaScript without waiting.
const writers: [string, (path: string) => Promise<void>][] = [
  ['saveSafetensors', (path) => saveSafetensors(path, { x: tensor([1, 2, 3]) })],
  ['saveNpy', (path) => saveNpy(path, tensor([1, 2, 3]))],
  ['writeJson', (path) => writeJson(path, { a: 1 })],
  ['writeJsonl', (path) => writeJsonl(path, [1, 2])],
  ['writeWav', (path) => writeWav(path, tensor([0.5, -0.5]), { sampleRate: 16000 })],
  ['writeAtomicallySync', async (path) => writeAtomicallySync(path, DataError, 'text')],
]

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'voxtorch-writers-'))
  path = join(folder, 'file')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

// Otherwise an empty file stands for the tensors.
test.each([
  ['saveSafetensors', saveSafetensors],
  ['saveNpz', saveNpz],
  ['saveGguf', saveGguf],
] as const)('%s refuses a Map of tensors, and writes nothing', async (name, save) => {
  for (const wrong of [new Map([['x', tensor([0.5])]]), [tensor([0.5])], tensor([0.5])]) {
    await expect(save(path, wrong as never)).rejects.toThrow(
      new RegExp(`^${name}: expected (tensors|values) to be an object, got an? `),
    )
  }
  expect(readdirSync(folder)).toEqual([])
})

const modeOf = (file: string) => statSync(file).mode & 0o7777

describe.each(writers)('%s', (_, write) => {
  async function expected(): Promise<Buffer> {
    const fresh = join(folder, 'fresh')
    await write(fresh)
    const bytes = readFileSync(fresh)
    rmSync(fresh)
    return bytes
  }

  test.each([0o600, 0o640, 0o444, 0o755])('keeps the mode %o of the file that it replaces', async (mode) => {
    const bytes = await expected()
    writeFileSync(path, 'before')
    chmodSync(path, mode)
    await write(path)
    expect(modeOf(path)).toBe(mode)
    expect(readFileSync(path).equals(bytes)).toBe(true)
    expect(readdirSync(folder)).toEqual(['file'])
  })

  test('makes a new file as the process makes files', async () => {
    writeFileSync(join(folder, 'other'), '')
    await write(path)
    expect(modeOf(path)).toBe(modeOf(join(folder, 'other')))
  })

  test('leaves a symbolic link, and replaces the file that it leads to', async () => {
    const bytes = await expected()
    mkdirSync(join(folder, 'elsewhere'))
    const target = join(folder, 'elsewhere', 'target')
    writeFileSync(target, 'before')
    chmodSync(target, 0o600)
    symlinkSync('elsewhere/target', join(folder, 'second'))
    symlinkSync(join(folder, 'second'), path)
    await write(path)
    expect(readlinkSync(path)).toBe(join(folder, 'second'))
    expect(readlinkSync(join(folder, 'second'))).toBe('elsewhere/target')
    expect(lstatSync(target).isFile()).toBe(true)
    expect(modeOf(target)).toBe(0o600)
    expect(readFileSync(target).equals(bytes)).toBe(true)
    expect(readdirSync(join(folder, 'elsewhere'))).toEqual(['target'])
  })

  test('makes the file that a link names though it is not there', async () => {
    const bytes = await expected()
    symlinkSync('missing', path)
    await write(path)
    expect(readlinkSync(path)).toBe('missing')
    expect(readFileSync(join(folder, 'missing')).equals(bytes)).toBe(true)
  })

  test('refuses a link that leads to itself', async () => {
    symlinkSync('file', path)
    const error = await write(path).catch((caught: unknown) => caught)
    expect(error).toMatchObject({ file: path, code: expect.stringMatching(/ERR_(DATA|CHECKPOINT)/) })
    expect(readlinkSync(path)).toBe('file')
  })

  test('writes into a pipe, which stays one', async () => {
    const bytes = await expected()
    expect(spawnSync('mkfifo', [path]).status).toBe(0)
    const copy = join(folder, 'copy')
    // Open at both ends from the start, so that no side waits for the other.
    const held = openSync(path, constants.O_RDWR)
    const reader = spawn('head', ['-c', String(bytes.length), path], {
      stdio: ['ignore', openSync(copy, 'w'), 'inherit'],
    })
    const ended = once(reader, 'exit')
    await write(path)
    await ended
    closeSync(held)
    expect(lstatSync(path).isFIFO()).toBe(true)
    expect(readFileSync(copy).equals(bytes)).toBe(true)
    expect(readdirSync(folder).sort()).toEqual(['copy', 'file'])
  })

  // Making a device takes a privilege.
  const place = mkdtempSync(join(tmpdir(), 'voxtorch-device-'))
  afterAll(() => rmSync(place, { recursive: true }))
  const device = join(place, 'full')
  const made = spawnSync('mknod', [device, 'c', '1', '7']).status === 0
  test.runIf(made)('names a device that is full, and leaves it', async () => {
    const error = await write(device).catch((caught: unknown) => caught)
    expect(error instanceof DataError || error instanceof CheckpointError).toBe(true)
    expect(error).toMatchObject({ file: device, message: expect.stringMatching(/space/) })
    expect(lstatSync(device).isCharacterDevice()).toBe(true)
  })
})

// Node's recursive mkdir turns for ever where the system says that what is above is not there, though it is.
describe.runIf(process.platform === 'linux')('a folder that the system refuses', () => {
  const small = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8, vocabSize: 9 }
  test.each<[string, () => unknown]>([
    ['SummaryWriter', () => new SummaryWriter('/proc/none/runs')],
    ['savePretrained', () => savePretrained('/proc/none', new Linear(1, 1), {})],
    ['save', () => new DecoderLM(small).save('/proc/none')],
    [
      'Trainer',
      () =>
        new Trainer({
          model: new Linear(1, 1),
          args: { outputDir: '/proc/none', maxSteps: 1 },
          trainDataset: [tensor([1.5])],
          computeLoss: (model, x) => (model as Linear).forward(x as never).sum(),
        }).train(),
    ],
  ])('%s', async (_, make) => {
    await expect((async () => make())()).rejects.toThrow(/proc\/none(\/runs)? cannot be created/)
  })
})
