import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { type Ending, launch, start } from '../distributed/ranks.js'
import { writeTextModel } from '../serve/text-model.mjs'

const script = fileURLToPath(new URL('./ranks-run.mjs', import.meta.url))
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-ranks-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const model = join(directory, 'model')
beforeAll(() => writeTextModel(model, vt.DecoderLM, { hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 2 }))

const words = ['ant', 'bee', 'cat', 'dog', 'elk', 'fox', 'gnu']
const write = (name: string, records: object[]) => {
  const file = join(directory, name)
  writeFileSync(file, records.map((record) => `${JSON.stringify(record)}\n`).join(''))
  return file
}
const user = (content: string) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })
const conversations = write(
  'sft.jsonl',
  words.map((word, i) => ({ messages: [user(`say ${word}`), assistant(`${word}${'!'.repeat(3 * i)}`)] })),
)
const heldOut = write(
  'held-out.jsonl',
  ['hen', 'ibis', 'jay'].map((word) => ({ messages: [user(`say ${word}`), assistant(`${word}!`)] })),
)
const pairs = write(
  'dpo.jsonl',
  words.map((word, i) => ({ prompt: `say ${word}: `, chosen: `${word}!`, rejected: `no ${word}${'?'.repeat(i)}` })),
)
const labeled = write(
  'kto.jsonl',
  words.map((word, i) => ({ prompt: `say ${word}: `, completion: `${word}!`, label: i % 2 === 0 })),
)
const prompts = write(
  'grpo.jsonl',
  words.map((word) => ({ prompt: [user(`say ${word}`)] })),
)

const heldOutPrompts = write(
  'held-out-prompts.jsonl',
  ['hen', 'ibis', 'jay'].map((word) => ({ prompt: [user(`say ${word}`)] })),
)

interface Config {
  kind: 'sft' | 'dpo' | 'grpo'
  data: string
  adapters?: boolean
  options: Record<string, unknown>
  stopAt?: number
}
/** What one process printed. */
interface Printed {
  rank: number
  hash: string
  values: number[]
  passes: number[][]
  results: Record<string, unknown> & { samples: { train: number } }
  losses: number[]
  logs: Record<string, number>[]
  state: { samplesSeen: number; tokensSeen: number }
  written: string[]
}

let runs = 0
const folderOf = (name: string) => join(directory, `${name}${runs++}`)
const configured = ({ options, ...rest }: Config, outputDir: string) =>
  JSON.stringify({ model, ...rest, options: { learningRate: 1e-2, warmupRatio: 0, outputDir, ...options } })

async function ended(running: Promise<Ending>): Promise<Printed[]> {
  const { code, stdout, stderr } = await running
  if (code !== 0) throw new Error(`ended with ${code}: ${stderr}`)
  const lines = [...stdout.matchAll(/^(?:\[\d\] )?(\{"rank".*)$/gm)].map(([, line]) => JSON.parse(line as string))
  return lines.sort((a, b) => a.rank - b.rank)
}
const alone = async (config: Config, outputDir = folderOf('alone')) =>
  (await ended(start([script, configured(config, outputDir)]).ended))[0] as Printed
const together = async (config: Config, outputDir = folderOf('both')) =>
  (await ended(
    launch(['--nproc', '2', script, configured(config, outputDir)], { env: { OMP_NUM_THREADS: '1' } }).ended,
  )) as [Printed, Printed]

const worst = (a: readonly number[], b: readonly number[]) => {
  expect(a).toHaveLength(b.length)
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))), 0)
}
/** The texts that contributed to the loss, in any order. */
const texts = (passes: readonly number[][]) =>
  passes.flatMap((ids) => [...String.fromCharCode(...ids).matchAll(/[a-z]{3}/g)].map(([word]) => word)).sort()

const CASES: [string, Config, Record<string, unknown>][] = [
  ['sft', { kind: 'sft', data: conversations, options: { epochs: 2, batchSize: 1 } }, { batchSize: 2 }],
  [
    'sft with metrics',
    {
      kind: 'sft',
      data: conversations,
      options: { batchSize: 1, evalRecords: heldOut, evalBatchSize: 2, metrics: ['cer', 'rougeL'], maxNewTokens: 6 },
    },
    { batchSize: 2 },
  ],
  [
    'sft without adapters',
    { kind: 'sft', data: conversations, adapters: false, options: { batchSize: 1 } },
    { batchSize: 2 },
  ],
  [
    'sft with packing',
    { kind: 'sft', data: conversations, options: { epochs: 2, batchSize: 1, maxLength: 64, packing: true } },
    { accumulation: 2 },
  ],
  ['dpo', { kind: 'dpo', data: pairs, options: { epochs: 2, batchSize: 1 } }, { batchSize: 2 }],
  ['simpo', { kind: 'dpo', data: pairs, options: { loss: 'simpo', batchSize: 1, beta: 2 } }, { batchSize: 2 }],
  [
    'grpo',
    {
      kind: 'grpo',
      data: prompts,
      options: { batchSize: 1, numGenerations: 4, maxCompletionLength: 6, beta: 0.05, accumulation: 2, epochs: 2 },
    },
    { batchSize: 2 },
  ],
]

describe('two processes', () => {
  it.each(CASES)(
    'of %s have the weights of one with twice the batch, and each record once',
    async (_, config, twice) => {
      const [folder, one] = [folderOf('both'), await alone({ ...config, options: { ...config.options, ...twice } })]
      const [first, second] = await together(config, folder)
      expect(second.hash).toBe(first.hash)
      expect(worst(first.values, one.values)).toBeLessThan(2e-5)
      expect(first.losses).toHaveLength(one.losses.length)
      expect(worst(first.losses, one.losses)).toBeLessThan(1e-4)
      expect(first.state).toEqual(one.state)
      expect(first.state.tokensSeen).toBeGreaterThan(first.state.samplesSeen)
      expect(first.results.samples).toEqual(one.results.samples)
      if (config.options.evalRecords !== undefined) {
        const { loss, ...metrics } = one.results.valid as Record<string, number>
        const { loss: lossOfBoth, ...metricsOfBoth } = first.results.valid as Record<string, number>
        expect(Math.abs((lossOfBoth as number) - (loss as number))).toBeLessThan(1e-4)
        expect(Object.keys(metrics).sort()).toEqual(['cer', 'rougeL'])
        expect(metricsOfBoth).toEqual(metrics)
        expect(second.results.valid).toEqual(first.results.valid)
      }
      if (config.kind !== 'grpo') {
        const epochs = (config.options.epochs as number | undefined) ?? 1
        const both = texts([...first.passes, ...second.passes])
        expect(both).toEqual(texts(one.passes))
        for (const word of words) {
          const count = both.filter((one) => one === word).length
          expect(count, word).toBe(config.kind === 'sft' ? epochs : 2 * epochs)
        }
        // Each has a part.
        for (const { passes } of [first, second]) expect(texts(passes).length).toBeLessThan(both.length)
      }
      // Rank 0 wrote everything, once.
      const log = readFileSync(join(folder, 'metrics.jsonl'), 'utf8').trimEnd().split('\n')
      const steps = log.map((line) => JSON.parse(line)).filter(({ loss }) => loss !== undefined)
      expect(new Set(steps.map(({ step }) => step)).size).toBe(steps.length)
      expect(first.written.filter((path) => path.startsWith(folder)).length).toBeGreaterThan(2)
      expect(second.written.filter((path) => path.startsWith(folder))).toEqual([])
    },
  )
  it.each([
    [
      'sft',
      {
        kind: 'sft',
        data: conversations,
        options: { batchSize: 1, epochs: 2, saveSteps: 2, packing: true, maxLength: 64 },
      },
    ],
    ['kto', { kind: 'dpo', data: labeled, options: { loss: 'kto', batchSize: 1, epochs: 2, saveSteps: 2 } }],
    [
      'grpo with two steps per answer',
      {
        kind: 'grpo',
        data: prompts,
        options: {
          batchSize: 1,
          numGenerations: 4,
          maxCompletionLength: 6,
          numIterations: 2,
          beta: 0.05,
          saveSteps: 3,
        },
      },
    ],
  ] satisfies [string, Config][])(
    'of %s that are stopped continue from the checkpoint of rank 0',
    async (_, config: Config) => {
      const [whole] = await together(config)
      const folder = folderOf('stopped')
      await expect(together({ ...config, stopAt: 5 }, folder)).rejects.toThrow('stopped by the test')
      const checkpoints = readdirSync(folder).filter((name) => name.startsWith('checkpoint-'))
      expect(checkpoints.length).toBeGreaterThan(0)
      const [first, second] = await together(config, folder)
      expect(first.hash).toBe(whole.hash)
      expect(second.hash).toBe(whole.hash)
      expect(first.results).toEqual(whole.results)
      expect(second.results).toEqual(whole.results)
      expect(second.written.filter((path) => path.startsWith(folder))).toEqual([])
      // Again: the results are those of the file.
      const [again] = await together(config, folder)
      expect(again.results).toEqual(whole.results)
      expect(again.losses).toEqual([])
    },
  )

  it('of grpo end alike when a reward function of one of them throws', async () => {
    const config: Config = {
      kind: 'grpo',
      data: prompts,
      options: { batchSize: 1, numGenerations: 2, rewardsThrowOn: 1 },
    }
    await expect(together(config)).rejects.toThrow(/got an error on rank 1: DataError.*reward 'capitals'.*not today/)
  })

  it.each([
    [
      'a reward function',
      {
        kind: 'grpo',
        data: prompts,
        // Rank 1 has fewer batches.
        options: {
          ...{ batchSize: 1, evalBatchSize: 1, numGenerations: 2, maxSteps: 1, maxCompletionLength: 4 },
          ...{ evalRecords: heldOutPrompts, rewardsThrowOn: 1, throwsInEvaluation: true },
        },
      },
      /trainGrpo: .*got an error on rank 1: DataError.*reward 'capitals'.*not today/,
    ],
    [
      'the generation of answers',
      {
        kind: 'sft',
        data: conversations,
        options: { batchSize: 1, maxSteps: 1, evalRecords: heldOut, metrics: ['cer'], generationThrowsOn: 1 },
      },
      /generateAnswers: .*got an error on rank 1: Error: not today/,
    ],
  ] satisfies [string, Config, RegExp][])(
    'end alike when %s of one of them throws in an evaluation',
    async (_, config: Config, message) => {
      await expect(together(config)).rejects.toThrow(message)
    },
  )
})
