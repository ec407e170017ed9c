import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { numbers, settledTensors } from '../helpers.js'

interface Config {
  width: number
}

class Tagger extends vt.Module {
  hidden: vt.Linear
  norm: vt.BatchNorm1d
  text: vt.Roberta

  constructor(readonly config: Config) {
    super()
    this.hidden = new vt.Linear(3, config.width)
    this.norm = new vt.BatchNorm1d(config.width)
    this.text = vt.Roberta.fromConfig({
      ...{ vocabSize: 5, hiddenSize: 4, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 4 },
      ...{ maxPositionEmbeddings: 8, typeVocabSize: 1 },
    })
  }

  override forward(x: vt.Tensor): vt.Tensor {
    return vt.scope(() => this.norm.forward(this.hidden.forward(x)))
  }
}

const load = (from: string) => vt.loadPretrained(from, (config: Config) => new Tagger(config))

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'voxtorch-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

/** The error of a promise that must fail. */
const failure = (work: Promise<unknown>): Promise<vt.VoxtorchError & Record<string, unknown>> =>
  work.then(
    () => expect.fail('nothing was thrown'),
    (error) => error,
  )

it('reads back what was saved, buffers and native parts too, in evaluation mode', async () => {
  using model = new Tagger({ width: 6 })
  const x = vt.randn([5, 3])
  model.forward(x).dispose() // moves the running statistics
  await vt.savePretrained(join(directory, 'a/b'), model, model.config)
  expect(readFileSync(join(directory, 'a/b/config.json'), 'utf8')).toBe('{\n  "width": 6\n}\n')

  const before = await settledTensors()
  const again = await load(join(directory, 'a/b'))
  expect(again.training).toBe(false)
  expect(again.config).toEqual({ width: 6 })
  const [saved, loaded] = [model.stateDict(), again.stateDict()]
  expect(Object.keys(loaded)).toEqual(Object.keys(saved))
  expect(Object.keys(saved)).toContain('norm.running_mean')
  expect(Object.keys(saved)).toContain('text.encoder.layer.0.attention.self.query.weight')
  for (const [name, value] of Object.entries(saved)) expect(loaded[name]!.equal(value), name).toBe(true)
  model.eval()
  const [expected, actual] = [model.forward(x), again.forward(x)]
  expect(numbers(actual)).toEqual(numbers(expected))
  for (const tensor of [expected, actual]) tensor.dispose()
  again.dispose()
  expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  x.dispose()
})

it('says what is wrong with the weights, and frees what it made', async () => {
  using model = new Tagger({ width: 6 })
  await vt.savePretrained(directory, model, { width: 7 })
  const file = join(directory, 'model.safetensors')
  const before = await settledTensors()
  const shapes = await failure(load(directory))
  expect(shapes).toBeInstanceOf(vt.CheckpointError)
  expect(shapes.message).toContain(file)
  expect(shapes.file).toBe(file)
  expect(shapes.mismatched).toContainEqual({ name: 'hidden.weight', expected: [7, 3], actual: [6, 3] })

  const names = await failure(vt.loadPretrained(directory, () => new vt.Linear(3, 6)))
  expect(names).toBeInstanceOf(vt.CheckpointError)
  expect(names.missing).toEqual(['weight', 'bias'])
  expect(names.unexpected).toContain('hidden.weight')
  expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
})

it('says what is wrong with the configuration', async () => {
  using model = new vt.Linear(2, 2)
  await vt.savePretrained(directory, model, {})
  const config = join(directory, 'config.json')
  for (const text of ['', '{"width": ', '[1]', 'null', '7']) {
    writeFileSync(config, text)
    const error = await failure(load(directory))
    expect(error, text).toBeInstanceOf(vt.CheckpointError)
    expect(error.file, text).toBe(config)
  }
  truncateSync(config, 2 ** 25) // a hole of 32 MiB: not read
  expect((await failure(load(directory))).message).toContain('bytes')
  rmSync(config)
  expect(await failure(load(directory))).toMatchObject({ name: 'CheckpointError', file: config })
  writeFileSync(config, '{}')
  rmSync(join(directory, 'model.safetensors'))
  expect(await failure(vt.loadPretrained(directory, () => new vt.Linear(2, 2)))).toBeInstanceOf(vt.CheckpointError)
})

it('refuses wrong arguments and passes on what build throws', async () => {
  using model = new vt.Linear(2, 2)
  const circle: Record<string, unknown> = {}
  circle.self = circle
  for (const config of [circle, { big: 1n }, [1], null, 'x', { toJSON: () => undefined }])
    expect(await failure(vt.savePretrained(directory, model, config as object))).toBeInstanceOf(vt.ConfigError)
  expect(await failure(vt.savePretrained(directory, {} as vt.Module, {}))).toBeInstanceOf(vt.ConfigError)
  expect(await failure(vt.savePretrained(7 as unknown as string, model, {}))).toBeInstanceOf(vt.ConfigError)
  writeFileSync(join(directory, 'file'), '')
  expect(await failure(vt.savePretrained(join(directory, 'file'), model, {}))).toBeInstanceOf(vt.CheckpointError)

  await vt.savePretrained(directory, model, {})
  expect(await failure(vt.loadPretrained(directory, 7 as never))).toBeInstanceOf(vt.ConfigError)
  expect(await failure(vt.loadPretrained(directory, () => 7 as never))).toBeInstanceOf(vt.ConfigError)
  const own = new RangeError('my own')
  const throwing = vt.loadPretrained(directory, () => {
    throw own
  })
  expect(await failure(throwing)).toBe(own)
})
