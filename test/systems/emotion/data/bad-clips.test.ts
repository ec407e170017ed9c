import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { arange, DataError, manualSeed, scope, writeWav } from '../../../../lib/index.js'
import { runCommand } from '../../../../lib/kit/command.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { writeEmotionReport, writeTrainingReport } from '../../../../lib/systems/emotion/answer/report-files.js'
import { label } from '../../../../lib/systems/emotion/commands/label.js'
import { train } from '../../../../lib/systems/emotion/commands/train.js'
import { BadClips } from '../../../../lib/systems/emotion/data/bad-clips.js'
import { FeatureCache } from '../../../../lib/systems/emotion/data/features.js'
import { EmotionFbankEncoder } from '../../../../lib/systems/emotion/network/voice-encoder.js'
import { trainPairs } from '../../../../lib/systems/emotion/published/train-pairs.js'
import { trainEmotion } from '../../../../lib/systems/emotion/training/train.js'
import { fixture } from '../../../helpers.js'
import { PATIENCE } from '../../../patience.js'
import { nodeAv } from '../../../vision/node-av.js'
import { hot, TinyEncoder } from '../tiny.js'

afterEach(() => vi.restoreAllMocks())

const dir = mkdtempSync(join(tmpdir(), 'voxtorch-bad-clips-'))
const good = join(dir, 'good.wav')
await scope(() => writeWav(good, arange(8000).mul(0.2).sin().mul(0.4), { sampleRate: 16000 }))
const broken = join(dir, 'broken.wav')
writeFileSync(broken, 'RIFF\0\0\0\0WAVEthis is not a sound')
const silent = join(dir, 'silent.mp4')
writeFileSync(silent, (await fixture('vision/videos-decoded')).tensors['h264/file/bytes']?.dataSync() as Uint8Array)
const lost = join(dir, 'lost.wav')

const LABELS = ['joy', 'anger']
const emotions = (id: number) => [0, 1, 2].map((u) => LABELS[(id + u) % 2] as string)
/** Dialogs of three utterances, all with a good sound; the clips of the first one are these. */
const talks = (count: number, from: number, clips: (string | undefined)[] = []): EmotionDialog[] =>
  Array.from({ length: count }, (_, d) => ({
    ...{ id: String(from + d), source: `made, dialog ${from + d}` },
    utterances: emotions(from + d).map((emotion, u) => {
      const path = (d === 0 ? clips[u] : undefined) ?? good
      return { id: u + 1, text: 'so', speaker: 'AB'[u % 2] as string, emotion, clip: { audio: path } }
    }),
    causes: [{ effect: 1, cause: 0, emotion: emotions(from + d)[1] as string }],
  }))
const data = (clips: (string | undefined)[]) => ({
  ...{ train: talks(6, 1, clips), valid: talks(2, 11), test: talks(2, 21, clips), labels: LABELS, notes: [] },
})
const bad = nodeAv ? [broken, lost, silent] : [broken, lost, broken]
const REASONS = nodeAv
  ? { 'no sound': 1, 'no such file': 1, 'not decodable': 1 }
  : { 'no such file': 1, 'not decodable': 2 }
const twice = Object.fromEntries(Object.entries(REASONS).map(([reason, count]) => [reason, 2 * count]))
/** Of encoders that do not train, which read the same bytes once. */
const once = { ...Object.fromEntries(Object.keys(REASONS).map((reason) => [reason, 1])), 'no such file': 2 }
const inAll = Object.values(once).reduce((sum, count) => sum + count, 0)
const words = (dialog: EmotionDialog, place: number) =>
  hot(8, LABELS.indexOf(dialog.utterances[place]?.emotion as string), place)
/** Reads clips as EmotionFbankEncoder does, and trains. */
class Hearing extends TinyEncoder {
  readonly #sound = new EmotionFbankEncoder()

  override async read(dialog: EmotionDialog, place: number): Promise<number[] | undefined> {
    await this.#sound.read(dialog, place)
    return super.read(dialog, place)
  }
}
const options = (clips: (string | undefined)[] = bad) => ({
  ...{ data: data(clips), outputDir: mkdtempSync(join(tmpdir(), 'voxtorch-bad-clips-')) },
  encoders: [new TinyEncoder('text', 8, words), new EmotionFbankEncoder() as never],
  ...{ config: { hiddenSize: 8 }, recipe: { epochs: 2, batchSize: 4 } },
  args: { progress: false, reportTo: 'none' as const },
})

describe('clips that cannot be read', () => {
  it('are errors that name utterance and file', async () => {
    const { recipe: _, config: __, ...rest } = options()
    for (const training of [() => trainEmotion(options()), () => trainPairs(rest)]) {
      const error = (await training().catch((one: Error) => one)) as DataError & { file?: string }
      expect(error).toBeInstanceOf(DataError)
      expect([broken, lost, silent]).toContain(error.file)
    }
    await expect(trainEmotion(options([broken]))).rejects.toThrow(/made, dialog 1, utterance 1, audio: .*broken\.wav/)
  })

  it(
    "are missing with onBadRecord: 'skip', counted by reason once each, and the report says so",
    async () => {
      const given = { ...options(), onBadRecord: 'skip' as const }
      const trained = await trainEmotion(given)
      expect(trained.results.badClips).toEqual(once)
      expect(trained.results.notes.join()).toContain(`${inAll} clips could not be read and count as missing (`)
      expect(trained.samples.train[0]?.vectors.audio).toEqual([undefined, undefined, undefined])
      expect(trained.samples.train[1]?.vectors.audio?.every((one) => one !== undefined)).toBe(true)
      const report = readFileSync(await writeTrainingReport(trained, given.outputDir), 'utf8')
      expect(report).toContain(`${inAll} clips could not be read and count as missing (`)
      expect(report).toMatch(/Audio of \d clips is missing: /)
      // A second run finds the same in the cache, and what it could not read is tried again.
      await scope(() => writeWav(lost, arange(8000).mul(0.1).sin(), { sampleRate: 16000 }))
      const again = await trainEmotion({ ...given, outputDir: join(given.outputDir, 'again'), cache: join(given.outputDir, 'features') }) // biome-ignore format: one line
      expect(again.results.badClips).toEqual({ ...once, 'no such file': undefined })
      const { rmSync } = await import('node:fs')
      rmSync(lost)
    },
    PATIENCE,
  )

  it('are missing for encoders that train too, and for pairs', async () => {
    const encoders = () => {
      manualSeed(2)
      return [new TinyEncoder('text', 8, words), new Hearing('audio', 8, words, { encoder: 'hearing' }, true)]
    }
    const given = { ...options(), encoders: encoders(), tune: 'full' as const, onBadRecord: 'skip' as const }
    const { results, model } = await trainEmotion(given)
    expect(results.badClips).toEqual(twice)
    expect(Object.keys(model.ownEncoders)).toEqual(['audio'])
    const { config: _, recipe: __, ...rest } = { ...options(), encoders: encoders(), tune: 'full' as const }
    const recipe = { epochs: 1, batchSize: 4, bf16: false }
    await expect(trainPairs({ ...rest, recipe })).rejects.toThrow(DataError)
    const pairs = await trainPairs({ ...rest, recipe, encoders: encoders(), onBadRecord: 'skip', outputDir: join(rest.outputDir, 'skip') }) // biome-ignore format: one line
    // Pairs are of some utterances of a dialog.
    expect(pairs.results.badClips['not decodable']).toBeGreaterThan(0)
  })

  it('are no reason to go on where a package is missing', async () => {
    const missing = Object.assign(new DataError('npm install something', {}), { missing: 'something' })
    const encoder = new TinyEncoder('text', 8, () => [1])
    vi.spyOn(encoder, 'read').mockRejectedValue(missing)
    const reading = new BadClips('skip').reading(encoder)
    await expect(reading.read(talks(1, 1)[0] as EmotionDialog, 0)).rejects.toThrow('npm install something')
    vi.spyOn(encoder, 'read').mockRejectedValue(new TypeError('a fault of ours'))
    await expect(reading.read(talks(1, 1)[0] as EmotionDialog, 0)).rejects.toThrow(TypeError)
  })

  it('do not make the cache forget which vector is whose', async () => {
    const clips = new BadClips('skip')
    const cache = FeatureCache.open(mkdtempSync(join(tmpdir(), 'voxtorch-bad-clips-')))
    const all = talks(3, 1, [broken, undefined, lost])
    const encoder = clips.reading(new TinyEncoder('audio', 3, (dialog, place) => [Number(dialog.id), place, 7, 0, 0, 0, 0, 0], {}, true)) // biome-ignore format: one line
    const sound = new EmotionFbankEncoder()
    const read = encoder.read.bind(encoder)
    encoder.read = clips.reading({
      ...encoder,
      read: async (dialog: EmotionDialog, place: number) => {
        await sound.read(dialog, place)
        return read(dialog, place)
      },
    }).read
    const rows = await cache.vectors(encoder, all, { batchSize: 2 })
    expect(rows.map((row) => row.map((one) => one !== undefined))).toEqual([[false, true, false], [true, true, true], [true, true, true]]) // biome-ignore format: one line
    const again = await cache.vectors(encoder, all)
    expect(again).toEqual(rows)
    await cache.close()
    expect(clips.reasons).toEqual({ 'not decodable': 1, 'no such file': 1 })
  })

  it('leave the rest of a report as it is', async () => {
    const labels = LABELS
    const utterances = [0, 1, 2].map(() => ({ emotion: 'joy', probabilities: [0.9, 0.1] }))
    const file = join(dir, 'report.html')
    await writeEmotionReport(file, [{ dialog: talks(1, 1, [broken])[0] as EmotionDialog, labels, utterances }], 'Title')
    const page = readFileSync(file, 'utf8')
    expect(page.match(/data-audio="data:audio/g)?.length).toBe(2)
    expect(page).toMatch(/Audio of 1 clip is missing: .*broken\.wav/)
  })

  it(
    'stop the commands, or are counted by them',
    async () => {
      const said = vi.spyOn(console, 'log').mockImplementation(() => {})
      const lines = [1, 2, 3, 4, 5, 6].map(
        (i) =>
        JSON.stringify({ dialog: i, text: 'so', emotion: LABELS[i % 2], audio: i === 2 ? broken : good, split: i < 5 ? 'train' : 'valid' }), // biome-ignore format: one line
      )
      const file = join(dir, 'x.jsonl')
      writeFileSync(file, `${lines.join('\n')}\n`)
      const argv = ['--data', file, '--text', 'none', '--audio', 'fbank', '--context-layers', '0', '--epochs', '1', '--no-progress', '--output', join(dir, 'run')] // biome-ignore format: one line
      await expect(runCommand('voxtorch emotion train', train, argv)).rejects.toThrow(/broken\.wav/)
      await runCommand('voxtorch emotion train', train, [...argv, '--on-bad-record', 'skip'])
      expect(said.mock.calls.flat().join('\n')).toMatch(
        /1 clip could not be read and counts as missing \(not decodable: 1\)/,
      )
      const page = join(dir, 'page.html')
      const asked = [file, '--model', join(dir, 'run/best'), '--report', page, '--output', join(dir, 'out.jsonl')]
      await expect(runCommand('voxtorch emotion label', label, asked)).rejects.toThrow(/broken\.wav/)
      await runCommand('voxtorch emotion label', label, [...asked, '--on-bad-record', 'skip'])
      expect(readFileSync(page, 'utf8')).toMatch(/1 clip could not be read and counts as missing/)
    },
    PATIENCE,
  )
})
