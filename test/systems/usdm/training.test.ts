import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DecoderLM, loadSafetensors, PeftModel, scope, type Tensor, tensor } from '../../../lib/index.js'
import {
  type FinetuneUsdmOptions,
  finetuneUsdm,
  pretrainUsdm,
  USDM_RECIPE,
  type UsdmExample,
  type UsdmTokenizer,
  usdmRecipe,
} from '../../../lib/systems/usdm/index.js'
import { sequencesOf, ustmCollate } from '../../../lib/systems/usdm/pretraining/train.js'
import { cosineScheduleWithWarmup } from '../../../lib/train/schedules.js'
import { expectClose, fixture, tensorsOf } from '../../helpers.js'
import { get } from '../../models/decoder.js'
import { camelKeys, loadParameters } from '../../models/networks.js'
import { byteTokenizer, tinyDialogs, tinyNetwork } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-training-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
let tokenizer: UsdmTokenizer
beforeAll(async () => {
  tokenizer = await byteTokenizer(join(home, 'tokenizer'), 6)
})

const quiet = { progress: false, reportTo: ['jsonl'] } as const
const logs = (outputDir: string): Record<string, number>[] =>
  readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
const weightsOf = (model: DecoderLM): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(model.stateDict()).map(([name, value]) => [name, value.detach().clone()]))

describe('finetuneUsdm', () => {
  it.each(['published', 'tokens'])('steps as PyTorch and transformers do: %s', async (mode) => {
    const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/usdm-training')
    const small = await byteTokenizer(join(home, 'small'), 3)
    await scope(async () => {
      const config = camelKeys(file.cases[0]?.config ?? {})
      const model = DecoderLM.fromConfig(config, { dtype: 'float64' })
      loadParameters(model, file, 'start')
      const given = tensorsOf(file, 'start', 'in')
      const numbers = (name: string) => (get(given[name]).toArray() as bigint[]).map(Number)
      const train = [0, 1, 2, 3].map((i): UsdmExample => {
        return { inputIds: numbers(`ids.${i}`), labels: numbers(`labels.${i}`) }
      })
      const outputDir = join(home, `steps-${mode}`)
      // All in one step, in whatever order: alone in a batch for the mean of means.
      const batches = mode === 'published' ? { batchSize: 1, accumulation: 4 } : { batchSize: 2, accumulation: 2 }
      await finetuneUsdm({
        ...{ model, tokenizer: small, train, outputDir },
        ...(mode === 'published' && { compat: 'published' }),
        recipe: { learningRate: 1e-2, epochs: 6, logSteps: 1, ...batches },
        args: quiet,
      })
      const { losses, rates } = tensorsOf(file, mode, 'out')
      const lines = logs(outputDir)
      expectClose(
        tensor(
          lines.map(({ loss }) => loss as number),
          { dtype: 'float64' },
        ),
        losses as Tensor,
        1e-6,
        'losses',
      )
      const own = tensor(
        lines.map(({ learningRate }) => learningRate as number),
        { dtype: 'float64' },
      )
      expectClose(own, rates as Tensor, 1e-9, 'rates')
      for (const [name, wanted] of Object.entries(tensorsOf(file, mode, 'after'))) {
        expectClose((model.stateDict()[name] as Tensor).float(), wanted, 1e-5, name)
      }
    })
  })

  it('of a whole model in bfloat16 comes near to float32', async () => {
    const run = async (dtype: 'bfloat16' | 'float32') => {
      const outputDir = join(home, `whole-${dtype}`)
      const model = tinyNetwork(tokenizer).to({ dtype })
      const recipe = { batchSize: 4, accumulation: 1, epochs: 3, learningRate: 1e-2, logSteps: 1 }
      await finetuneUsdm({ model, tokenizer, train: tinyDialogs(tokenizer, 12), outputDir, recipe, args: quiet })
      expect(model.parameters().every((one) => one.dtype === dtype)).toBe(true)
      return logs(outputDir).flatMap(({ loss }) => (loss === undefined ? [] : [loss]))
    }
    const [half, single] = [await run('bfloat16'), await run('float32')]
    expect(half).toHaveLength(9)
    for (const [i, loss] of half.entries()) expect(Math.abs(loss / (single[i] as number) - 1)).toBeLessThan(0.1)
    expect(half.at(-1)).toBeLessThan(half[0] as number)
    expect(half).not.toEqual(single)
  })

  it('packed gives what padded rows give', async () => {
    const train = tinyDialogs(tokenizer, 10)
    const run = async (packed: boolean) => {
      const model = tinyNetwork(tokenizer).to({ dtype: 'float64' })
      const outputDir = join(home, `packed-${packed}`)
      const recipe = { batchSize: 3, accumulation: 2, epochs: 2, learningRate: 1e-3, logSteps: 1, evalSteps: 2 }
      const valid = tinyDialogs(tokenizer, 3, 9)
      const results = await finetuneUsdm({ model, tokenizer, train, valid, outputDir, packed, recipe, args: quiet })
      return { model, results, logs: logs(outputDir) }
    }
    const [packed, padded] = [await run(true), await run(false)]
    expect(packed.logs.map(({ step }) => step)).toEqual(padded.logs.map(({ step }) => step))
    for (const [i, { loss, evalLoss }] of packed.logs.entries()) {
      if (loss !== undefined) expect(loss).toBeCloseTo(padded.logs[i]?.loss as number, 9)
      if (evalLoss !== undefined) expect(evalLoss).toBeCloseTo(padded.logs[i]?.evalLoss as number, 9)
    }
    for (const [name, value] of Object.entries(packed.model.stateDict())) {
      expectClose(value, padded.model.stateDict()[name] as Tensor, 1e-6, name)
    }
    expect(packed.results.valid?.perplexity).toBeCloseTo(Math.exp(packed.results.valid?.loss as number), 9)
    expect(packed.results.samples).toEqual({ train: 10, valid: 3, test: 0 })
  })

  it('gives speech nothing to say of what is not learnt: only the labels make a loss', async () => {
    const [example] = tinyDialogs(tokenizer, 1) as [UsdmExample]
    await scope(async () => {
      const model = tinyNetwork(tokenizer)
      const recipe = { epochs: 1, batchSize: 1, accumulation: 1, logSteps: 1 }
      const loss = async (one: UsdmExample, name: string) => {
        const outputDir = join(home, name)
        await finetuneUsdm({ model: tinyNetwork(tokenizer), tokenizer, train: [one], outputDir, recipe, args: quiet })
        return logs(outputDir)[0]?.loss as number
      }
      const { logits } = await model.forward({ inputIds: tensor([example.inputIds]) })
      const rows = (logits as Tensor).select(0, 0).logSoftmax(-1).toArray() as number[][]
      const told = example.labels.flatMap((label, i) => (label === -100 ? [] : [-(rows[i - 1] as number[])[label]!]))
      expect(await loss(example, 'labels')).toBeCloseTo(told.reduce((sum, one) => sum + one, 0) / told.length, 5)
    })
  })

  it.each([
    ['two tables', false],
    ['one table', true],
  ])('with adapters trains them and the rows of tokens: %s', async (name, tieWordEmbeddings) => {
    await scope(async () => {
      const train = tinyDialogs(tokenizer, 4)
      const outputDir = join(home, `lora ${name}`)
      const made = () => tinyNetwork(tokenizer, { tieWordEmbeddings, vocabSize: 258 })
      const model = made()
      const before = weightsOf(model)
      const recipe = { learningRate: 1e-2, epochs: 4, batchSize: 2, accumulation: 1 }
      const results = await finetuneUsdm({ model, tokenizer, train, outputDir, lora: true, recipe, args: quiet })
      expect(results.adapters).toBe(true)
      const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
      const parts = new Set(trained.map(([path]) => /lora|embed_tokens|lm_head/.exec(path)?.[0]))
      expect([...parts].sort()).toEqual(['embed_tokens', 'lm_head', 'lora'])
      expect(trained.some(([path]) => /[ko]_proj|mlp/.test(path))).toBe(false)
      for (const [path, value] of Object.entries(before)) {
        if (/embed_tokens|lm_head/.test(path)) continue
        expect((model.stateDict()[path] as Tensor).equal(value), path).toBe(true)
      }
      const { tensors } = await loadSafetensors(join(outputDir, 'model/adapter_model.safetensors'))
      const names = Object.keys(tensors)
      expect(
        names.some((path) => path.includes('embed_tokens')) && names.some((path) => path.includes('lm_head')),
      ).toBe(true)
      // Loaded on the same base it answers the same.
      const inputIds = tensor([train[0]!.inputIds])
      const answered = (await model.eval().forward({ inputIds })).logits as Tensor
      const base = made().eval()
      base.resizeTokenEmbeddings(tokenizer.vocabSize, { seed: 42 })
      const peft = await PeftModel.fromPretrained(base, join(outputDir, 'model'))
      expectClose((await peft.forward({ inputIds })).logits as Tensor, answered, 1e-6)
    })
  })

  it('as published, adapters leave the rows of tokens as they are', async () => {
    await scope(async () => {
      const model = tinyNetwork(tokenizer)
      const options = {
        model,
        tokenizer,
        train: tinyDialogs(tokenizer, 2),
        outputDir: join(home, 'published'),
        args: quiet,
      }
      await finetuneUsdm({ ...options, lora: { r: 4 }, compat: 'published', recipe: { accumulation: 1 } })
      const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
      expect(trained.every(([path]) => path.includes('lora'))).toBe(true)
      expect(trained[0]?.[1].shape[0]).toBe(4)
    })
  })

  it('gives the results again that a finished run left, and has the defaults of the original', async () => {
    expect(usdmRecipe()).toEqual(USDM_RECIPE)
    const options = () => ({ model: tinyNetwork(tokenizer), tokenizer, train: tinyDialogs(tokenizer, 3), args: quiet })
    const outputDir = join(home, 'again')
    const first = await finetuneUsdm({ ...options(), outputDir })
    expect(await finetuneUsdm({ ...options(), outputDir })).toEqual(first)
    const args = JSON.parse(readFileSync(join(outputDir, 'checkpoint-1/training_args.json'), 'utf8'))
    expect(args).toMatchObject({
      ...{ perDeviceTrainBatchSize: 2, gradientAccumulationSteps: 4, learningRate: 2e-5, lrSchedulerType: 'cosine' },
      ...{ warmupRatio: 0.03, adamBeta1: 0.9, adamBeta2: 0.95, adamEpsilon: 1e-8, weightDecay: 0.01, decayAll: true },
      ...{ maxGradNorm: 0, seed: 42, saveTotalLimit: 2, saveSteps: 1000, loggingSteps: 50, numTrainEpochs: 1 },
    })
  })

  it('refuses what cannot be trained on, naming it', async () => {
    const model = tinyNetwork(tokenizer)
    const options = {
      model,
      tokenizer,
      train: tinyDialogs(tokenizer, 2),
      outputDir: join(home, 'refused'),
      args: quiet,
    }
    const refused = (changes: object, message: RegExp) =>
      expect(finetuneUsdm({ ...options, ...changes } as FinetuneUsdmOptions)).rejects.toThrow(message)
    await refused({ model: {} }, /model to be a DecoderLM/)
    await refused({ tokenizer: tokenizer.tokenizer }, /tokenizer to be a UsdmTokenizer/)
    await refused({ train: [] }, /train to be a file/)
    await refused({ train: join(home, 'nowhere.txt') }, /nowhere\.txt cannot be opened/)
    await refused({ compat: 'sane' }, /compat to be 'published'/)
    await refused({ recipe: { lerningRate: 1 } }, /did you mean 'learningRate'/)
    await refused({ recipe: { batchSize: 0 } }, /batchSize to be an integer of at least 1/)
    await refused({ trian: 1 }, /trian/)
    const write = (text: string) => {
      const file = join(home, 'bad.txt')
      writeFileSync(file, text)
      return file
    }
    await refused({ train: write('') }, /bad\.txt: expected at least one line/)
    await refused(
      { train: write('1 2 3|-100 2 3\n1 2|-100') },
      /bad\.txt, line 2: expected as many labels as ids, got 1 labels and 2 ids/,
    )
    await refused(
      { train: write('1 2 90000|-100 2 90000') },
      /line 1: expected ids below 267, .*, got 90000 \(number 3\)/,
    )
  })
})

it('the schedule of 100 steps, of which 3 warm up, has the factors that were published', () => {
  const factor = cosineScheduleWithWarmup({ numWarmupSteps: 3, numTrainingSteps: 100 })
  const factors = [0, 1, 2, 3, 50, 99].map((step) => factor(step).toFixed(6))
  expect(factors).toEqual(['0.000000', '0.333333', '0.666667', '1.000000', '0.524281', '0.000262'])
})

describe('pretrainUsdm', () => {
  const rows = (): number[][] => {
    const { ids } = tokenizer
    const sequence = (length: number, from: number) => [
      0,
      ...Array.from({ length }, (_, i) => ids.firstUnit + ((i + from) % 6)),
      1,
    ]
    return [
      [...sequence(9, 0), ...sequence(4, 1)],
      [...sequence(12, 2)],
      [...sequence(3, 3), ...sequence(3, 4), ...sequence(3, 5)],
    ]
  }

  it('packs rows so that no sequence sees another, and asks for the next one as published', () => {
    expect(sequencesOf([0, 5, 1, 0, 6, 7, 1], { bos: 0, eos: 1 })).toEqual([
      [0, 5, 1],
      [0, 6, 7, 1],
    ])
    expect(sequencesOf([5, 1, 6, 7, 1], { bos: null, eos: 1 })).toEqual([
      [5, 1],
      [6, 7, 1],
    ])
    expect(sequencesOf([5, 0, 6], { bos: 0, eos: 1 })).toEqual([[5], [0, 6]])
    scope(() => {
      const two = [
        [0, 5, 1, 0, 6, 1],
        [0, 7, 1],
      ]
      const ours = ustmCollate(tokenizer.ids)(two)
      expect(ours.sequenceLengths).toEqual([3, 3, 3])
      expect(ours.inputIds.toArray()).toEqual([two.flat()])
      expect(ours.labels.toArray()).toEqual([[-100, 5, 1, -100, 6, 1, -100, 7, 1]])
      // Rows stay apart: only what stands in one row is asked for.
      expect(ustmCollate(tokenizer.ids, 'published')(two).labels.toArray()).toEqual([[-100, 5, 1, 0, 6, 1, -100, 7, 1]])
    })
  })

  it.each([undefined, 'published'] as const)('has the loss of separate sequences: %s', async (compat) => {
    await scope(async () => {
      const made = () => tinyNetwork(tokenizer, { modelType: 'mistral', slidingWindow: 4, windowInclusive: true })
      const outputDir = join(home, `ustm-${compat}`)
      writeFileSync(
        join(home, 'part0.txt'),
        rows()
          .map((row) => row.join(' '))
          .join('\n'),
      )
      const recipe = { batchSize: 1, accumulation: 3, epochs: 1, logSteps: 1 }
      const options = { model: made(), tokenizer, train: home, valid: rows(), outputDir, recipe, args: quiet }
      const results = await pretrainUsdm({ ...options, ...(compat && { compat }) })
      const model = made()
      // Rows by hand, one sequence at a time; the beginning of the next is told by the last state of the one before.
      const means: number[] = []
      const all: number[] = []
      for (const row of rows()) {
        const told: number[] = []
        const sequences = sequencesOf(row, tokenizer.ids)
        for (const [i, sequence] of sequences.entries()) {
          const { logits } = await model.forward({ inputIds: tensor([sequence]) })
          const scores = (logits as Tensor).select(0, 0).logSoftmax(-1).toArray() as number[][]
          const next = compat && sequences[i + 1] ? [...sequence.slice(1), 0] : sequence.slice(1)
          told.push(...next.map((id, place) => -(scores[place] as number[])[id]!))
        }
        means.push(told.reduce((sum, one) => sum + one, 0) / told.length)
        all.push(...told)
      }
      const mean = (values: number[]) => values.reduce((sum, one) => sum + one, 0) / values.length
      expect(logs(outputDir)[0]?.loss).toBeCloseTo(compat ? mean(means) : mean(all), 5)
      expect(results.samples).toEqual({ train: 3, valid: 3, test: 0 })
      expect(results.valid?.loss).toBeGreaterThan(0)
    })
  })

  it("as published wants the published window, of the model's configuration", async () => {
    const rows = { train: [[1, 2, 3]], outputDir: join(home, 'window'), compat: 'published' as const }
    using strict = tinyNetwork(tokenizer, { modelType: 'mistral', slidingWindow: 4 })
    const refused = { name: 'ConfigError', message: expect.stringMatching(/windowInclusive: true/) }
    await expect(pretrainUsdm({ ...rows, model: strict, tokenizer })).rejects.toMatchObject(refused)
    const dialogs = { ...rows, train: tinyDialogs(tokenizer, 2) }
    await expect(finetuneUsdm({ ...dialogs, model: strict, tokenizer })).rejects.toMatchObject(refused)
  })

  it('takes rows in their order, and refuses what is none', async () => {
    const order: number[][] = []
    const data = rows()
    const train = {
      length: data.length,
      get: (i: number) => {
        order.push([i])
        return data[i] as number[]
      },
    }
    const options = { model: tinyNetwork(tokenizer), tokenizer, outputDir: join(home, 'order'), args: quiet }
    await pretrainUsdm({ ...options, train, recipe: { epochs: 2, batchSize: 1, accumulation: 1 } })
    expect(order.flat()).toEqual([0, 1, 2, 0, 1, 2])
    const refused = (given: object, message: RegExp) =>
      expect(pretrainUsdm({ ...options, outputDir: join(home, 'none'), train, ...given } as never)).rejects.toThrow(
        message,
      )
    await refused({ train: join(home, 'tokenizer') }, /expected part0\.txt in .*tokenizer, got none/)
    await refused({ train: join(home, 'nowhere') }, /got .*nowhere: /)
    writeFileSync(join(home, 'bad-rows.txt'), '0 5 1\n0 x 1')
    await refused({ train: join(home, 'bad-rows.txt') }, /bad-rows\.txt, line 2: expected an id, got "x"/)
    writeFileSync(join(home, 'bad-rows.txt'), '0 5 1\n0 5000 1')
    await refused({ train: join(home, 'bad-rows.txt') }, /bad-rows\.txt, line 2: expected ids below \d+, .*, got 5000/)
  })
})
