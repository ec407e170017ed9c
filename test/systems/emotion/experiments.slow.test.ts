import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import {
  arange,
  manualSeed,
  noGrad,
  ops,
  scope,
  type Tensor,
  type TrainerCallback,
  writeWav,
} from '../../../lib/index.js'
import {
  emotionDataOfArguments,
  emotionTrainingOfArguments,
  encodersOfArguments,
  pairTrainingOfArguments,
  withConfigFile,
} from '../../../lib/systems/emotion/configuration/apply.js'
import type { EmotionArguments } from '../../../lib/systems/emotion/configuration/arguments.js'
import {
  EmotionClassifier,
  type EmotionEncoder,
  emotionAnswers,
  emotionSamples,
  openEmotionData,
  trainEmotion,
  trainPairs,
} from '../../../lib/systems/emotion/index.js'
import { emotionOptimizer } from '../../../lib/systems/emotion/training/optimizer.js'
import { EMOTION_RECIPE } from '../../../lib/systems/emotion/training/recipe.js'
import { withAdapters } from '../../../lib/systems/emotion/training/train.js'
import { PATIENCE } from '../../patience.js'
import { start } from '../../train/trainer/child.js'
import { dialogs, frameFolder, hot, TinyEncoder, tinyBert, tinyLanguageBind } from './tiny.js'

const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-experiments-'))
const dir = folder()
const LABELS = ['joy', 'anger', 'neutral']
await scope(() => writeWav(join(dir, 'a.wav'), arange(8000).mul(0.2).sin().mul(0.4), { sampleRate: 16000 }))

/** Dialogs with words, frames and sounds. */
function written(count: number, name: string): string {
  const lines = Array.from({ length: count }, (_, d) =>
    Array.from({ length: 2 }, (_, u) =>
      JSON.stringify({
        ...{ dialog: String(d + 1), speaker: 'AB'[u], text: `a photo of ${d % 7}`, emotion: LABELS[(d + u) % 3] },
        ...{ frames: frameFolder(dir, `frames${(d + u) % 3}`, (d + u) % 3), audio: join(dir, 'a.wav') },
        ...(u === 1 && { causes: [1] }),
        split: d < count - 4 ? 'train' : d < count - 2 ? 'valid' : 'test',
      }),
    ),
  ).flat()
  const file = join(dir, name)
  writeFileSync(file, `${lines.join('\n')}\n`)
  return file
}
const configs = fileURLToPath(new URL('../../../examples/configs/languagebind/', import.meta.url))
const experiments = readdirSync(configs).filter((name) => name.startsWith('exp-'))

describe('the published experiments, on small networks', () => {
  it.each(experiments)(
    '%s trains one step',
    async (name) => {
      const { options: published } = await withConfigFile({ config: join(configs, name) })
      const [video, audio, bert] = [
        await tinyLanguageBind('video'),
        await tinyLanguageBind('audio'),
        await tinyBert(['a']),
      ]
      const isText = published.video === undefined
      const options: EmotionArguments = {
        ...published,
        ...{ data: written(38, `${name}.jsonl`), output: folder(), maxSteps: 1, text: isText ? bert : video },
        ...(published.video !== undefined && { video }),
        ...(published.audio !== undefined && { audio }),
      }
      const data = await openEmotionData(...emotionDataOfArguments(options))
      const encoders = await encodersOfArguments(options)
      expect(encoders.map(({ modality }) => modality)).toEqual(
        isText ? ['text'] : ['video', ...(published.audio === undefined ? [] : ['audio']), 'text'],
      )
      const args = { progress: false, reportTo: 'none' as const, maxSteps: 1 }
      if (options.pairs) {
        const { results } = await trainPairs({ data, encoders, ...pairTrainingOfArguments(options), args })
        expect(results.globalStep).toBe(1)
        expect(results.test?.loss).toBeGreaterThan(0)
        return
      }
      const { results, model } = await trainEmotion({ data, encoders, ...emotionTrainingOfArguments(options), args })
      expect(results.globalStep).toBe(1)
      expect(Number.isFinite(results.test?.macroF1)).toBe(true)
      expect(model.head.linear.bias === null).toBe(published.fusion !== 'frames')
      const trainable = published.tune === 'full' ? results.parameters : results.trainable
      expect(results.trainable).toBe(trainable)
      expect(results.trainable > 0).toBe(true)
    },
    PATIENCE,
  )
})

const words = (dialog: { id: string; utterances: readonly { emotion?: string }[] }, place: number) =>
  hot(8, LABELS.indexOf(dialog.utterances[place]?.emotion as string), Number(dialog.id) * 10 + place)
const parts = () => {
  const all = dialogs(24, LABELS)
  return { train: all.slice(0, 16), valid: all.slice(16, 20), test: all.slice(20), labels: LABELS, notes: [] }
}
const encoder = () => {
  manualSeed(6)
  return new TinyEncoder('text', 8, words, {}, true)
}
const quiet = { progress: false, reportTo: 'none' as const }

describe('adapters beside a head that trains', () => {
  it('learn at rates of their own, and what is below them stays', async () => {
    const live = encoder()
    const model = new EmotionClassifier(
      { labels: LABELS, sizes: { text: 8 } },
      { encoders: { text: live as EmotionEncoder } },
    )
    withAdapters(model, { r: 2, targetModules: ['table'] }, undefined)
    const trained = model.namedParameters().filter(([, one]) => one.requiresGrad)
    expect(trained.some(([name]) => name.includes('lora_A'))).toBe(true)
    expect(trained.some(([name]) => name.startsWith('head.'))).toBe(true)
    const optimizer = emotionOptimizer(model, { ...EMOTION_RECIPE, headLearningRate: 1e-2, encoderLearningRate: 1e-4 })
    const rateOf = new Map(optimizer.groups.flatMap(({ params, lr }) => params.map((one) => [one, lr] as const)))
    for (const [name, one] of trained)
      expect(rateOf.get(one as never), name).toBe(name.startsWith('encoders.') ? 1e-4 : 1e-2)
    const before = Object.fromEntries(model.namedParameters().map(([name, one]) => [name, noGrad(() => one.clone())]))
    const { emotionCollate } = await import('../../../lib/systems/emotion/index.js')
    const { labels, known, ...inputs } = await emotionCollate(
      { text: 8 },
      model.ownEncoders,
    )(emotionSamples(parts().train, LABELS))
    for (let i = 0; i < 2; i += 1) {
      const { logits } = await model.forward(inputs)
      await logits
        .reshape([-1, 3])
        .indexSelect(0, known)
        .logSoftmax(1)
        .gather(1, labels.unsqueeze(1))
        .neg()
        .mean()
        .backward()
      await optimizer.step()
      optimizer.zeroGrad()
    }
    const moved = (name: string) => {
      const now = Object.fromEntries(model.namedParameters())[name] as Tensor
      return !ops.equal(now.detach(), before[name] as Tensor)
    }
    for (const [name] of model.namedParameters()) {
      const isBase = name.startsWith('encoders.') && !name.includes('lora_')
      // Of the head itself a copy is trained, and the original kept as it was.
      if (isBase || name.includes('original_module')) expect(moved(name), name).toBe(false)
      else if (trained.some(([one]) => one === name)) expect(moved(name), name).toBe(true)
    }
  })

  it(
    'are saved with what they are merged into',
    async () => {
      const live = encoder()
      const { weight } = (live.network as NonNullable<typeof live.network>).table
      const first = noGrad(() => weight.clone())
      const outputDir = folder()
      const { model, samples } = await trainEmotion({
        ...{ data: parts(), encoders: [live], outputDir, args: quiet, tune: { r: 2, targetModules: ['table'] } },
        recipe: { epochs: 3, batchSize: 4, headLearningRate: 1e-2, encoderLearningRate: 1e-2 },
      })
      const merged = live.network?.table.weight as Tensor
      expect(ops.equal(merged.detach(), first)).toBe(false)
      expect(model.namedParameters().some(([name]) => name.includes('lora_'))).toBe(false)
      const { loadSafetensors } = await import('../../../lib/files/index.js')
      const again = encoder()
      again.network?.loadStateDict((await loadSafetensors(join(outputDir, 'best/text/table.safetensors'))).tensors)
      const loaded = await EmotionClassifier.fromPretrained(join(outputDir, 'best'), { encoders: [again] })
      const logits = async (one: EmotionClassifier) =>
        (await emotionAnswers(one, samples.test)).map((each) => each.logits)
      expect(await logits(loaded)).toEqual(await logits(model))
    },
    PATIENCE,
  )
})

describe('a step of training', () => {
  /** All weights behind one step, and the losses that were logged. */
  async function step(recipe: object) {
    const losses: number[] = []
    const note: TrainerCallback = {
      onLog({ logs }: { logs: Record<string, number> }) {
        if (logs.loss !== undefined) losses.push(logs.loss)
      },
    } as never
    const { model } = await trainEmotion({
      ...{ data: { ...parts(), valid: [], test: [] }, encoders: [encoder()], outputDir: folder(), tune: 'full' },
      config: { fusion: 'concat', dropout: 0 },
      recipe: {
        epochs: 1,
        warmup: 0,
        classWeights: 'none',
        headLearningRate: 1e-2,
        encoderLearningRate: 1e-2,
        ...recipe,
      },
      args: { ...quiet, maxSteps: 1, loggingSteps: 1 },
      callbacks: [note],
    })
    return { weights: model.namedParameters().map(([, one]) => one.detach()), loss: losses[0] as number }
  }
  const apart = (a: readonly Tensor[], b: readonly Tensor[]) =>
    Math.max(
      ...a.map((one, i) =>
        Number(
          one
            .sub(b[i] as Tensor)
            .abs()
            .max()
            .item(),
        ),
      ),
    )

  it('of sixteen batches of one dialog is that of one batch of sixteen', async () => {
    const [many, one] = [await step({ batchSize: 1, accumulation: 16 }), await step({ batchSize: 16, accumulation: 1 })]
    expect(apart(many.weights, one.weights)).toBeLessThan(1e-5)
    expect(Math.abs(many.loss - one.loss)).toBeLessThan(1e-5)
    const part = await step({ batchSize: 8, accumulation: 1 })
    expect(apart(part.weights, one.weights)).toBeGreaterThan(1e-4)
  })

  it('in bfloat16 has the loss of float32 within its rounding, and weights that are numbers', async () => {
    const [half, whole] = [await step({ batchSize: 16, bf16: true }), await step({ batchSize: 16 })]
    expect(half.loss).not.toBe(whole.loss)
    expect(Math.abs(half.loss - whole.loss)).toBeLessThan(2e-2)
    for (const one of half.weights) expect([one.dtype, one.isfinite().all().item()]).toEqual(['float32', true])
  })
})

it(
  'a training that is killed goes on to the same bits, in another process',
  async () => {
    const bert = await tinyBert(['glad', 'angry', 'so', 'it', 'is', '.'])
    const script = fileURLToPath(new URL('train-run.mjs', import.meta.url))
    const whole = start([script, folder(), bert])
    expect(await whole.exit, whole.errors()).toEqual({ code: 0, signal: null })
    const where = folder()
    for (const steps of [2, 2]) {
      const child = start([script, where, bert])
      for (let i = 0; i < steps; i += 1) await child.line(/^step/)
      child.process.kill('SIGKILL')
      expect((await child.exit).signal).toBe('SIGKILL')
    }
    const last = start([script, where, bert])
    expect(await last.exit, last.errors()).toEqual({ code: 0, signal: null })
    expect(last.lines.filter((line) => line.startsWith('step')).length).toBeLessThan(8)
    expect(last.lines.slice(-2)).toEqual(whole.lines.slice(-2))
  },
  PATIENCE,
)

describe('the examples', () => {
  const root = fileURLToPath(new URL('../../..', import.meta.url))
  const run = (...words: string[]) =>
    promisify(execFile)(process.execPath, ['--import', 'tsx', ...words], { cwd: root, timeout: PATIENCE })

  it(
    'languagebind-embed sorts a folder by a sentence',
    async () => {
      const clips = folder()
      for (const [i, name] of ['b.wav', 'a.wav'].entries())
        await scope(() =>
          writeWav(
            join(clips, name),
            arange(8000)
              .mul(0.1 + 0.4 * i)
              .sin(),
            { sampleRate: 16000 },
          ),
        )
      writeFileSync(join(clips, 'c.ppm'), `P3 2 1 255 1 2 3 4 5 6\n`)
      writeFileSync(join(clips, 'notes.txt'), 'nothing')
      const encoders = ['--audio', await tinyLanguageBind('audio'), '--image', await tinyLanguageBind('image')]
      const { stdout } = await run('examples/languagebind-embed.ts', clips, 'a dog barks', ...encoders)
      const found = [...stdout.matchAll(/^(-?\d\.\d{3}) {2}(\S+)$/gm)].map(([, cosine, file]) => [Number(cosine), file])
      expect(found.map(([, file]) => file).sort()).toEqual(['a.wav', 'b.wav', 'c.ppm'].map((name) => join(clips, name)))
      expect(found[0]?.[0]).toBeGreaterThanOrEqual(found[1]?.[0] as number)
    },
    PATIENCE,
  )

  it(
    'languagebind-emotion trains, learns causes, and draws strips with arrows',
    async () => {
      const output = folder()
      const bert = await tinyBert(['a', 'photo', 'of', '0', '1', '2', '3', '4', '5', '6'])
      const data = written(24, 'example.jsonl')
      const options = ['--epochs', '1', '--tune', 'full', '--causes', '--context-layers', '0', '--no-progress']
      const { stdout } = await run('examples/languagebind-emotion.ts', '--data', data, '--text', bert, '--output', output, ...options) // biome-ignore format: one line
      expect(stdout).toMatch(/20 dialogs for training, 2 for validation, 2 for test/)
      expect(stdout).toMatch(/weightedF1/)
      const page = readFileSync(join(output, 'strips.html'), 'utf8')
      expect(page).toContain('2 dialogs')
      expect(page).toContain('class="cause"')
    },
    PATIENCE,
  )
})
