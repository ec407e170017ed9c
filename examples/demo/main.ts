/**
 * Show what speech-text fusion is for, on a task that neither modality solves alone: is the text positive, and is the voice
 * bright or flat? A positive text in a flat voice suggests sarcasm. Three small models are trained, on speech and text, on
 * text alone and on speech alone, and tested on sentences and voices outside the training set.
 *
 * `npm run demo -- [--out DIR] [--clips DIR] [--epochs N] [--seed N] [--quick]`; the voices are synthetic (espeak-ng).
 */
import { deepEqual } from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import { type Clip, clipFolder, LABELS, labelOf, planClips } from './clips.js'
import { SpeechTextClassifier } from './model.js'
import { outcomeOf, table } from './outcome.js'
import { page } from './report.js'
import { RATE, speakClips } from './speech.js'
import { Vocabulary } from './vocabulary.js'

const { values: options } = parseArgs({
  options: {
    out: { type: 'string', default: 'demo-output' },
    clips: { type: 'string', default: clipFolder() },
    epochs: { type: 'string', default: '8' },
    seed: { type: 'string', default: '0' },
    quick: { type: 'boolean', default: false }, // a few clips and one epoch, to see that everything runs
  },
})
const [seed, epochs] = [Number(options.seed), options.quick ? 1 : Number(options.epochs)]
const [BATCH, BANDS] = [32, 80]
vt.setNumThreads(1) // models this small gain little from a second one, and lose much where other programs run

// ---- the data

interface Sample {
  text: Int32Array
  speech: Float32Array
  label: number
}

/** Log-mel frames each 16 ms, every band with mean 0 over the clip: that takes away much of what tells voices apart. */
async function read(clips: Clip[], vocabulary: Vocabulary): Promise<Sample[]> {
  const settings = { nFft: 1024, hopLength: 256, nMels: BANDS, fMax: 4000, log: 'ln', floor: 1e-5 } as const
  const samples: Sample[] = []
  for (const clip of clips) {
    await vt.scope(async () => {
      const { samples: wave } = await vt.readAudio(join(options.clips, clip.file), { sampleRate: RATE })
      const mel = await vt.melSpectrogram(wave, RATE, settings) // [bands, frames]
      const even = mel.sub(mel.mean([1], { keepdim: true })).div(2)
      const speech = (await even.transpose(0, 1).contiguous().data()) as Float32Array
      samples.push({ text: vocabulary.encode(clip.text), speech, label: labelOf(clip) })
    })
  }
  return samples
}

const collate = vt.padCollate({
  text: { pad: 0, dtype: 'int64', elementShape: [Vocabulary.perWord], mask: 'textMask' }, // [batch, words, 14]
  speech: { pad: 0, elementShape: [BANDS], mask: 'speechMask' }, // [batch, frames, bands]
  label: {},
})

// ---- training and testing

/** Gives the mean loss of each epoch. */
async function train(model: SpeechTextClassifier, samples: Sample[], name: string): Promise<number[]> {
  const lengthBuckets = { lengthOf: (i: number) => samples[i]!.speech.length, bucketSize: 16 * BATCH }
  const loader = new vt.DataLoader(samples, { batchSize: BATCH, shuffle: true, seed, collate, lengthBuckets })
  const optimizer = new vt.AdamW(model.parameterGroups(), { lr: 1e-3 })
  const [numWarmupSteps, numTrainingSteps] = [2 * loader.length, epochs * loader.length]
  const schedule = vt.getLinearScheduleWithWarmup(optimizer, { numWarmupSteps, numTrainingSteps })
  using events = new vt.SummaryWriter(join(options.out, 'events', name.replaceAll(' ', '-')))
  using bar = new vt.ProgressBar({ total: numTrainingSteps, label: name.padEnd(15), unit: 'steps' })
  const curve: number[] = []
  for (let epoch = 1; epoch <= epochs; epoch++) {
    let sum = 0
    for await (const batch of loader) {
      await vt.scope(async () => {
        const loss = vt.functional.crossEntropy(await model.forward(batch), batch.label)
        await loss.backward()
        await vt.clipGradNorm(model.parameters(), 1)
        await optimizer.step()
        optimizer.zeroGrad()
        schedule.step()
        sum += Number(loss.item())
        bar.tick(1, { epoch, loss: Number(loss.item()) })
        events.addScalar('train/loss', Number(loss.item()), bar.count)
      })
    }
    curve.push(sum / loader.length)
  }
  return curve
}

/** Logits of each sample. */
async function predict(model: SpeechTextClassifier, samples: Sample[]): Promise<number[][]> {
  model.eval()
  const logits: number[][] = []
  for await (const batch of new vt.DataLoader(samples, { batchSize: 64, collate })) {
    const rows = vt.noGrad(() => vt.scope(async () => (await model.forward(batch)).toArray()))
    logits.push(...((await rows) as number[][]))
  }
  return logits
}

// ---- the demo

const seconds = { speaking: 0, reading: 0, training: 0, all: 0 }
async function timed<T>(what: keyof typeof seconds, work: Promise<T>): Promise<T> {
  const start = performance.now()
  const result = await work
  seconds[what] += (performance.now() - start) / 1000
  return result
}

const started = performance.now()
const clips = planClips({ quick: options.quick })
await timed('speaking', speakClips([...clips.train, ...clips.test], options.clips))
const vocabulary = Vocabulary.of(clips.train.map((clip) => clip.text))
const readAll = (part: Clip[]) => timed('reading', read(part, vocabulary))
const data = { train: await readAll(clips.train), test: await readAll(clips.test) }
const [loss, guesses]: [Record<string, number[]>, Record<string, number[]>] = [{}, {}]
let parameters = 0
for (const name of ['speech and text', 'text alone', 'speech alone']) {
  vt.manualSeed(seed)
  const shape = { vocabSize: vocabulary.size, bands: BANDS, classes: LABELS.length, dim: 96, heads: 4, dropout: 0.1 }
  const model = new SpeechTextClassifier({ ...shape, text: name !== 'speech alone', speech: name !== 'text alone' })
  loss[name] = await timed('training', train(model, data.train, name))
  const logits = await predict(model, data.test)
  guesses[name] = logits.map((row) => row.indexOf(Math.max(...row)))
  if (name !== 'speech and text') continue
  parameters = model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)
  const directory = join(options.out, 'model')
  await model.save(directory)
  await vocabulary.save(join(directory, 'vocabulary.json'))
  const words = await Vocabulary.load(join(directory, 'vocabulary.json'))
  const reread = data.test.map((sample, i) => ({ ...sample, text: words.encode(clips.test[i]!.text) }))
  deepEqual(await predict(await SpeechTextClassifier.fromPretrained(directory), reread), logits)
}
seconds.all = (performance.now() - started) / 1000

const { outcome, files } = outcomeOf({ clips, guesses, loss, parameters, epochs, seed, seconds })
const sounds = files.map((file) => join(options.clips, file))
await writeFile(join(options.out, 'demo.json'), `${JSON.stringify(outcome, null, 2)}\n`)
await writeFile(join(options.out, 'report.html'), await page(outcome, sounds))
console.log(`\n${table(outcome)}\n\n${seconds.all.toFixed(0)} s, ${seconds.speaking.toFixed(0)} of them for speaking.`)
console.log(`The voices are synthetic. Open ${join(options.out, 'report.html')}.`)
