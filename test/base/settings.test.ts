import { describe, expect, expectTypeOf, it } from 'vitest'
import { ConfigError } from '../../lib/base/errors.js'
import { checkedBy, functionOf, instanceOf, SIGNAL, settings, unchecked } from '../../lib/base/settings.js'
import { commandRule, helpOf } from '../../lib/kit/command.js'
import { readOptions } from '../../lib/kit/options.js'

const TRAINING = settings({
  learningRate: { type: 'number', default: 1e-3, defaultText: '1e-3', help: 'peak rate', argument: 'learningRate' },
  batchSize: {
    ...{ type: 'integer', default: 8, min: 1, help: 'samples per batch', aliases: ['per_device_train_batch_size'] },
    argument: 'perDeviceTrainBatchSize',
  },
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.95], argument: ['adamBeta1', 'adamBeta2'] },
  warmup: { type: 'fraction', default: 0.1, help: 'part of the steps' },
  limit: { type: 'integer', min: 1, nullable: true, default: null, defaultText: 'no limit', help: 'maximum length' },
  schedule: { type: ['linear', 'cosine'], default: 'cosine', help: 'schedule', placeholder: 'name' },
  bf16: { type: 'boolean', default: false, help: 'compute in bfloat16' },
  checkpointing: { type: 'boolean', takesValue: true, default: true, help: 'recompute' },
  size: { type: [1, 2, false], default: 1 },
  files: { type: 'strings', help: 'files to read', placeholder: 'file' },
  name: { type: 'string', help: 'name of the run', argument: 'runName' },
  onStep: {
    type: checkedBy<(step: number) => void>((where, name, value) => {
      if (typeof value !== 'function') throw new ConfigError(`${where}: expected ${name} to be a function`)
    }),
  },
})
const read = (options: object) => TRAINING.read('train', options)

describe('a table of settings', () => {
  it('gives the type of its options and values', () => {
    type Options = NonNullable<Parameters<typeof TRAINING.read>[1]>
    expectTypeOf<Options['learningRate']>().toEqualTypeOf<number | undefined>()
    expectTypeOf<Options['schedule']>().toEqualTypeOf<'linear' | 'cosine' | undefined>()
    const values = TRAINING.read('train')
    expectTypeOf(values.betas).toEqualTypeOf<[number, number]>()
    expectTypeOf(values.limit).toEqualTypeOf<number | null>()
    expectTypeOf(values.size).toEqualTypeOf<false | 1 | 2>()
    expectTypeOf(values.files).toEqualTypeOf<string[] | undefined>()
    expectTypeOf(values.onStep).toEqualTypeOf<((step: number) => void) | undefined>()
  })

  it('fills in the defaults, or those of a second set', () => {
    const values = { learningRate: 1e-3, batchSize: 8, betas: [0.9, 0.95], warmup: 0.1, limit: null }
    const rest = { schedule: 'cosine', bf16: false, checkpointing: true, size: 1 }
    expect(TRAINING.defaults).toEqual({ ...values, ...rest })
    const onStep = () => {}
    expect(read({ batchSize: 2, warmup: undefined, limit: 5, files: ['a'], onStep })).toEqual({
      ...{ ...values, ...rest, batchSize: 2, limit: 5, files: ['a'], onStep },
    })
    expect(TRAINING.read('train', { warmup: 0 }, { ...TRAINING.defaults, batchSize: 3 })).toMatchObject({
      ...{ batchSize: 3, warmup: 0 },
    })
    expect(TRAINING.defaults.batchSize).toBe(8)
  })

  it.each([
    [{ batchsize: 3 }, "train: expected a known option, got 'batchsize'; did you mean 'batchSize'?"],
    [{ batchSize: 0 }, 'train: expected batchSize to be an integer of at least 1, got 0'],
    [{ batchSize: 1.5 }, 'train: expected batchSize to be an integer of at least 1, got 1.5'],
    [{ batchSize: null }, 'train: expected batchSize to be an integer of at least 1, got null'],
    [{ learningRate: -1 }, 'train: expected learningRate to be a number of at least 0, got -1'],
    [{ learningRate: Infinity }, 'train: expected learningRate to be a finite number of at least 0, got Infinity'],
    [{ learningRate: '1' }, 'train: expected learningRate to be a number of at least 0, got "1"'],
    [{ warmup: 1 }, 'train: expected warmup to be a fraction in [0, 1), got 1'],
    [{ limit: 0 }, 'train: expected limit to be an integer of at least 1, got 0'],
    [{ betas: [0.9] }, 'train: expected betas to be 2 numbers, got an array of length 1'],
    [{ betas: [0.9, 1] }, 'train: expected betas[1] to be a number of at least 0 and below 1, got 1'],
    [{ schedule: 'cos' }, `train: expected schedule to be 'linear', 'cosine', got "cos"`],
    [{ size: 3 }, 'train: expected size to be 1 or 2 or false, got 3'],
    [{ bf16: 'yes' }, 'train: expected bf16 to be a boolean, got "yes"'],
    [{ files: ['a', 1] }, 'train: expected files to be a list of strings, got an array of length 2'],
    [{ name: 3 }, 'train: expected name to be a string, got 3'],
    [{ onStep: 3 }, 'train: expected onStep to be a function'],
  ])('refuses %o', (options, message) => {
    expect(() => read(options)).toThrow(ConfigError)
    expect(() => read(options)).toThrow(expect.objectContaining({ message }))
  })

  it('refuses what is not an object, or cannot be read', () => {
    for (const value of [null, 3, 'x']) expect(() => read(value as never)).toThrow(ConfigError)
    const hostile = Object.defineProperty({}, 'name', {
      enumerable: true,
      get: () => {
        throw 1
      },
    })
    expect(() => read(hostile)).toThrow(ConfigError)
  })

  it('is a table of command-line options', () => {
    expect(Object.keys(TRAINING.options)).not.toContain('betas')
    const line = '--per-device-train-batch-size 2 --checkpointing false --bf16 --files a b --limit 3'
    const { options } = readOptions('train', TRAINING.options, line.split(' '))
    expectTypeOf(options.checkpointing).toEqualTypeOf<boolean | undefined>()
    expect(options).toEqual({ batchSize: 2, checkpointing: false, bf16: true, files: ['a', 'b'], limit: 3 })
    const wrong = (text: string) => () => readOptions('train', TRAINING.options, text.split(' '))
    expect(wrong('--batch-size 0')).toThrow(/^--batch-size: expected an integer of at least 1, got "0"\.$/)
    expect(wrong('--checkpointing maybe')).toThrow(/^--checkpointing: expected true or false, got "maybe"\.$/)
    const help = helpOf(
      'train',
      commandRule({ name: 'x', summary: 'X.', options: TRAINING.options, run: async () => 0 }),
    )
    expect(help).toMatch(/--learning-rate <number> +peak rate \(default: 1e-3\)\n/)
    expect(help).toMatch(/--limit <n> +maximum length \(default: no limit\)\n/)
    expect(help).toMatch(/--bf16 +compute in bfloat16\n/)
    expect(help).toMatch(/--checkpointing <true\|false> +recompute \(default: true\)\n/)
    expect(help).toMatch(/--schedule <name> +schedule \(default: cosine\)\n/)
  })

  it('finds its settings among other values, and names them as TrainingArguments does', () => {
    expect(TRAINING.changesIn({ batchSize: 2, warmup: undefined, device: 'cpu' })).toEqual({ batchSize: 2 })
    expect(TRAINING.trainingArguments(read({ name: 'a' }))).toEqual({
      ...{ learningRate: 1e-3, perDeviceTrainBatchSize: 8, adamBeta1: 0.9, adamBeta2: 0.95, runName: 'a' },
    })
    expect(TRAINING.trainingArguments(read({}))).not.toHaveProperty('runName')
  })

  it('picks and extends', () => {
    const small = TRAINING.pick('batchSize', 'name').extend({ seed: { type: 'integer', default: 42 } })
    expectTypeOf(small.read('x').seed).toEqualTypeOf<number>()
    expect(small.names).toEqual(['batchSize', 'name', 'seed'])
    expect(small.defaults).toEqual({ batchSize: 8, seed: 42 })
    expect(() => small.read('x', { warmup: 0 } as never)).toThrow(/^x: expected a known option, got 'warmup'/)
    const larger = TRAINING.extend({ batchSize: { type: 'integer', default: 16, min: 2 } })
    expect(larger.defaults.batchSize).toBe(16)
    expect(() => larger.read('x', { batchSize: 1 })).toThrow(/of at least 2/)
  })

  it('requires settings, names options otherwise, and checks signals, functions and instances', () => {
    const table = settings({
      folder: { type: 'string', required: true, help: 'folder', option: 'outputDir' },
      when: { type: instanceOf(Date) },
      onStep: { type: functionOf<() => void>() },
      signal: { type: SIGNAL },
      parts: { type: unchecked<number[]>(), default: [] },
    })
    expectTypeOf(table.read('x', { folder: 'a' }).folder).toEqualTypeOf<string>()
    expectTypeOf(table.read('x', { folder: 'a' }).when).toEqualTypeOf<Date | undefined>()
    // @ts-expect-error: folder is required
    expect(() => table.read('x', {})).toThrow(/^x: expected folder to be a string, got undefined$/)
    const read = (options: object) => () => table.read('x', { folder: 'a', ...options })
    expect(read({ when: 3 })).toThrow(/^x: expected when to be a Date, got 3$/)
    expect(read({ onStep: 3 })).toThrow(/^x: expected onStep to be a function, got 3$/)
    expect(read({ signal: 3 })).toThrow(/^x: expected signal to be an AbortSignal, got 3$/)
    const { signal } = new AbortController()
    const given = { when: new Date(), onStep: () => {}, signal, parts: [1] }
    expect(read(given)()).toEqual({ folder: 'a', ...given })
    const { options } = readOptions('x', table.options, ['--output-dir', 'b'])
    expect(options).toEqual({ outputDir: 'b' })
    expect(table.fromOptions({ ...options, folder: 'c' })).toEqual({ folder: 'b' })
  })
})
