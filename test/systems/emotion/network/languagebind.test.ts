import { mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  arange,
  ConfigError,
  LanguageBind,
  manualSeed,
  noGrad,
  openVideo,
  preprocessVideo,
  randn,
  sampleFrames,
  scope,
  type Tensor,
  tensor,
  writeWav,
} from '../../../../lib/index.js'
import type { EmotionClip } from '../../../../lib/kit/emotion/clips.js'
import { EMOTIONS, type EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { emotionSamples } from '../../../../lib/systems/emotion/data/collate.js'
import { FeatureCache } from '../../../../lib/systems/emotion/data/features.js'
import { emotionAnswers } from '../../../../lib/systems/emotion/evaluation/evaluate.js'
import { openEncoder } from '../../../../lib/systems/emotion/network/files.js'
import {
  isLanguageBind,
  LanguageBindEmotionEncoder,
} from '../../../../lib/systems/emotion/network/languagebind-encoders.js'
import { EmotionClassifier } from '../../../../lib/systems/emotion/network/network.js'
import { FrameHead } from '../../../../lib/systems/emotion/published/heads.js'
import { EmotionPairClassifier } from '../../../../lib/systems/emotion/published/pair-network.js'
import { withAdapters } from '../../../../lib/systems/emotion/training/train.js'
import { difference, fixture } from '../../../helpers.js'
import { nodeAv } from '../../../vision/node-av.js'

const textConfig = {
  vocabSize: 20,
  maxPositionEmbeddings: 6,
  numHiddenLayers: 1,
  hiddenSize: 8,
  intermediateSize: 12,
  numAttentionHeads: 2,
  hiddenAct: 'gelu',
}
const vision = {
  numHiddenLayers: 2,
  imageSize: 8,
  patchSize: 4,
  hiddenSize: 8,
  intermediateSize: 12,
  numAttentionHeads: 2,
  hiddenAct: 'gelu',
}
const config = {
  video: { textConfig, visionConfig: { ...vision, addTimeAttn: true, numFrames: 4 }, projectionDim: 6 },
  audio: { textConfig, visionConfig: { ...vision, numMelBins: 8, targetLength: 24 }, projectionDim: 6 },
}
const END = 19

/** Words as their lengths, in place of CLIP's vocabulary. */
const tokenizer = {
  endTokenId: END,
  encode: (text: string) => {
    const ids = [18, ...text.split(' ').map((word) => word.length), END].slice(0, 6)
    return { inputIds: tensor([[...ids, ...new Array(6 - ids.length).fill(END)]], { dtype: 'int64' }) }
  },
}

function model(): LanguageBind {
  manualSeed(4)
  const made = LanguageBind.fromConfig(config)
  made.tokenizer = tokenizer as never
  return made
}

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-bind-'))
const wav = join(folder, 'a.wav')
await scope(() => writeWav(wav, arange(4000).mul(0.3).sin(), { sampleRate: 16000 }))
writeFileSync(join(folder, 'a.mp4'), 'film')
const dialog: EmotionDialog = {
  ...{ id: '1', source: 'made' },
  utterances: [
    { id: 1, text: 'so it is', speaker: 'A', emotion: 'joy', clip: { audio: wav, video: join(folder, 'a.mp4') } },
    { id: 2, text: 'no', speaker: 'B', emotion: 'fear' },
  ],
}
const readVideo = async () => {
  manualSeed(9)
  return randn([3, 4, 8, 8])
}
const encodersOf = (bind: LanguageBind, options = {}) => ({
  video: new LanguageBindEmotionEncoder(bind, 'video', { readVideo, ...options }),
  audio: new LanguageBindEmotionEncoder(bind, 'audio', options),
  text: new LanguageBindEmotionEncoder(bind, 'text', options),
})

describe('LanguageBindEmotionEncoder', () => {
  it('gives what LanguageBind gives: vectors of its space, all but text times their temperature', async () => {
    const bind = model().eval()
    const all = encodersOf(bind)
    const even = encodersOf(bind, { useTemp: false })
    for (const name of ['video', 'audio', 'text'] as const) {
      const input = (await all[name].read(dialog, 0)) as Tensor
      const [scaled, unit] = await noGrad(async () => [
        await all[name].encode([input, input]),
        await even[name].encode([input]),
      ])
      expect([all[name].size, scaled.shape, unit.shape]).toEqual([6, [2, 6], [1, 6]])
      expect(Number(unit.square().sum().item())).toBeCloseTo(1, 5)
      const temperature = name === 'text' ? 1 : bind.temperature(name)
      expect(difference(scaled.narrow(0, 0, 1), unit.mul(temperature))).toBeLessThan(1e-5)
      expect((await FeatureCache.keyOf(all[name])) === (await FeatureCache.keyOf(even[name]))).toBe(name === 'text')
    }
    const own = await bind.embed({ audio: [wav], text: { inputIds: tokenizer.encode('so it is').inputIds } })
    const sound = (await all.audio.read(dialog, 0)) as Tensor
    expect(difference(await noGrad(() => all.audio.encode([sound])), own.audio)).toBeLessThan(1e-5)
    const words = (await all.text.read(dialog, 0)) as Tensor
    expect(difference(await noGrad(() => all.text.encode([words])), own.text)).toBeLessThan(1e-5)
    expect([await all.audio.read(dialog, 1), await all.video.source(dialog, 1)]).toEqual([undefined, undefined])
    bind.tokenizer = null
    expect(() => new LanguageBindEmotionEncoder(bind, 'text')).toThrow(ConfigError)
  })

  it('reads frames spread evenly over a film or a folder of pictures, as LanguageBind prepares them', async () => {
    const encoder = new LanguageBindEmotionEncoder(model(), 'video')
    const frames = join(folder, 'frames')
    mkdirSync(frames)
    const pictures = Array.from({ length: 10 }, (_, i) =>
      Array.from({ length: 9 * 11 * 3 }, (_, k) => (i * 25 + k * 7) % 256),
    )
    for (const [i, bytes] of pictures.entries())
      writeFileSync(join(frames, `${i}.ppm`), `P3 11 9 255 ${bytes.join(' ')}`)
    const of = (clip: EmotionClip) => ({ ...dialog, utterances: [{ ...dialog.utterances[1], clip }] }) as EmotionDialog
    const seen = (await encoder.read(of({ frames }), 0)) as Tensor
    const chosen = sampleFrames(10, { count: 4 }).map((i) => pictures[i] as number[])
    const clip = tensor(chosen.flat(), { dtype: 'uint8' }).reshape([4, 9, 11, 3])
    expect(seen.shape).toEqual([1, 3, 4, 8, 8])
    expect(difference(seen.select(0, 0), await preprocessVideo(clip, { size: 8 }))).toBe(0)
    await expect(encoder.read(of({ frames, start: 1 }), 0)).rejects.toThrow(
      /expected timestamps or a frame rate, got neither/,
    )
    // No film, or nothing that reads films.
    await expect(encoder.read(dialog, 0)).rejects.toThrow(/a\.mp4|node-av/)
  })

  it.skipIf(!nodeAv)(
    'reads of a film the seconds of the utterance, by the times of its frames (npm node-av)',
    async () => {
      const encoder = new LanguageBindEmotionEncoder(model(), 'video')
      const { tensors } = await fixture('vision/videos-decoded')
      const video = join(folder, 'variable.mp4')
      writeFileSync(video, tensors['h264-variable/file/bytes']?.dataSync() as Uint8Array)
      await using opened = await openVideo(video)
      const of = (clip: EmotionClip) =>
        ({ ...dialog, utterances: [{ ...dialog.utterances[1], clip }] }) as EmotionDialog
      // Frame i is shown at 0.04 i + 0.013 i², and at about 0.27 i on average.
      const spans: [EmotionClip, number[]][] = [
        [{ video, start: 1, end: 3 }, [7, 9, 11, 13]],
        [{ video, start: 0, end: 0.6 }, [0, 1, 3, 5]],
        [{ video, start: 1.2, end: 1.3 }, [8, 8, 8, 8]],
        [{ video }, [0, 6, 12, 19]],
      ]
      for (const [clip, places] of spans) {
        const seen = (await encoder.read(of(clip), 0)) as Tensor
        const wanted = await preprocessVideo(await opened.frames(places), { size: 8 })
        expect(difference(seen.select(0, 0), wanted), String(places)).toBe(0)
      }
    },
  )

  it('gives states of frames and of tokens, over which attention runs', async () => {
    const bind = model().eval()
    const states = (name: 'video' | 'text') => new LanguageBindEmotionEncoder(bind, name, { readVideo, states: true })
    const encoders = { video: states('video'), text: states('text') }
    expect([encoders.video.size, encoders.video.steps, encoders.text.size, encoders.text.steps]).toEqual([32, 4, 48, 6])
    const film = (await encoders.video.read(dialog, 0)) as Tensor
    const words = (await encoders.text.read(dialog, 0)) as Tensor
    const [seen, said] = await noGrad(async () => [
      await encoders.video.encode([film]),
      await encoders.text.encode([words]),
    ])
    const { frameOutput, poolerOutput } = await noGrad(() => bind.encoder('video').forward({ pixelValues: film }))
    expect(difference(seen.reshape([1, 4, 8]), frameOutput)).toBe(0)
    expect(difference(seen.reshape([4, 8]).mean([0], true), poolerOutput)).toBeLessThan(1e-5)
    // Three words, a beginning and an end: the sixth place is padding.
    const rows = said.reshape([6, 8])
    expect(rows.ne(0).any(1).toArray()).toEqual([true, true, true, true, true, false])
    expect(await FeatureCache.keyOf(encoders.video as never)).not.toBe(
      await FeatureCache.keyOf(new LanguageBindEmotionEncoder(bind, 'video', { readVideo }) as never),
    )
    const config = { sizes: { video: 32, text: 48 }, steps: { video: 4, text: 6 }, fusion: 'frames' as const }
    const [ours, theirs] = [null, 'published' as const].map(
      (compat) =>
        new EmotionClassifier({ ...config, compat }, { encoders: encoders as never }).eval() as EmotionClassifier,
    ) as [EmotionClassifier, EmotionClassifier]
    const samples = emotionSamples([dialog], EMOTIONS)
    const logits = async (one: EmotionClassifier, some = samples) =>
      (await emotionAnswers(one, some)).flatMap((answer) => answer.logits)
    const single = emotionSamples([{ ...dialog, utterances: dialog.utterances.slice(0, 1) }], EMOTIONS)
    for (const [i, value] of ((await logits(ours))[0] as number[]).entries())
      expect((await logits(ours, single))[0]?.[i]).toBeCloseTo(value, 5)
    expect((await logits(theirs))[0]).not.toEqual((await logits(theirs, single))[0])
    // The second utterance has no film, and its answer is a number all the same.
    expect((await logits(ours)).flat().every(Number.isFinite)).toBe(true)
    const head = new FrameHead({ videoSize: 8, textSize: 8 })
    const { fusion, linear } = ours.head
    head.loadStateDict({
      ...Object.fromEntries(Object.entries(fusion.frames?.stateDict() ?? {})),
      'linear.weight': linear.weight,
      'linear.bias': linear.bias as Tensor,
    })
    const mask = tensor([[1, 1, 1, 1, 1, 0]]).ne(0)
    const wanted = noGrad(() => head.forward(seen.reshape([1, 4, 8]), rows.unsqueeze(0), mask)).toArray() as number[][]
    for (const [i, value] of (wanted[0] as number[]).entries())
      expect((await logits(ours))[0]?.[i]).toBeCloseTo(value, 5)
    for (const broken of [
      { steps: { video: 5, text: 6 } },
      { steps: {} },
      { fusion: 'concat' as const, compat: 'published' as const },
    ])
      expect(() => new EmotionClassifier({ ...config, ...broken })).toThrow(ConfigError)
    expect(() => new LanguageBindEmotionEncoder(bind, 'audio', { states: true })).toThrow(ConfigError)
  })

  it('trains with a classifier, and is saved once for all of its encoders', async () => {
    const bind = model()
    const encoders = encodersOf(bind)
    const sizes = { video: 6, audio: 6, text: 6 }
    const classifier = new EmotionClassifier(
      { sizes, fusion: 'concat', labels: ['joy', 'fear'] },
      { encoders: encoders as never },
    )
    const names = classifier.namedParameters().map(([name]) => name)
    expect(names).toContain('encoders.video.encoder.encoder.layers.0.temporal_attn.q_proj.weight')
    expect(names).toContain('encoders.text.proj.weight')
    expect(new Set(classifier.parameters()).size).toBe(names.length)
    const samples = emotionSamples([dialog], ['joy', 'fear'])
    const { emotionCollate } = await import('../../../../lib/systems/emotion/data/collate.js')
    const { labels: _, known: __, ...inputs } = await emotionCollate(sizes, encoders as never)(samples)
    const { logits } = await classifier.forward(inputs)
    await logits.square().mean().backward()
    for (const path of ['encoders.video.proj.weight', 'encoders.audio.proj.weight', 'encoders.text.proj.weight']) {
      const { grad } = Object.fromEntries(classifier.namedParameters())[path] as Tensor
      expect(grad?.abs().max().item(), path).toBeGreaterThan(0)
    }
    bind.tokenizer = null
    const where = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-bind-'))
    await classifier.save(where)
    expect(readdirSync(where).sort()).toEqual([
      'audio',
      'config.json',
      'languagebind',
      'model.safetensors',
      'text',
      'video',
    ])
    const sound = (await openEncoder(join(where, 'audio'))) as unknown as LanguageBindEmotionEncoder
    const heard = (await sound.read(dialog, 0)) as Tensor
    const own = await noGrad(() => encoders.audio.encode([heard]))
    expect(difference(await noGrad(() => sound.encode([heard])), own)).toBeLessThan(1e-5)
    expect(await isLanguageBind('LanguageBind/LanguageBind_Video_FT')).toBe(true)
    expect(await isLanguageBind('minilm')).toBe(false)
    bind.tokenizer = tokenizer as never
    const loaded = await LanguageBind.fromPretrained(join(where, 'languagebind'))
    loaded.tokenizer = tokenizer as never
    const again = await EmotionClassifier.fromPretrained(where, {
      encoders: Object.values(encodersOf(loaded)) as never,
    })
    const answers = async (one: EmotionClassifier) => (await emotionAnswers(one, samples)).map((each) => each.logits)
    const [a, b] = [await answers(classifier.eval()), await answers(again)]
    for (const [i, row] of (a[0] as number[][]).entries())
      for (const [k, value] of row.entries()) expect(b[0]?.[i]?.[k]).toBeCloseTo(value, 5)
  })

  it('has the counts of the published experiments', () => {
    const count = (some: readonly Tensor[]) => some.reduce((sum, one) => sum + one.numel(), 0)
    const attention = ['q_proj', 'k_proj', 'v_proj', 'out_proj']
    const counts = (names: ('video' | 'audio' | 'text')[], targetModules: string[], pairs = false) => {
      const bind = LanguageBind.fromConfig(
        names.includes('audio')
          ? { video: 'LanguageBind_Video_FT', audio: 'LanguageBind_Audio_FT' }
          : { video: 'LanguageBind_Video_FT' },
        { device: 'meta' },
      )
      bind.tokenizer = tokenizer as never
      const encoders = Object.fromEntries(names.map((name) => [name, new LanguageBindEmotionEncoder(bind, name)]))
      const sizes = Object.fromEntries(names.map((name) => [name, 768]))
      const options = { encoders: encoders as never, device: 'meta' as const }
      const model = pairs
        ? new EmotionPairClassifier({ sizes }, options)
        : new EmotionClassifier({ sizes, fusion: 'concat', headBias: false }, options)
      const whole = count(model.parameters())
      withAdapters(model, { targetModules }, 'published')
      const all = model.parameters()
      return [whole, count(all.filter((one) => one.requiresGrad)), count(all)]
    }
    // The experiments' own log: trainable and all, of experiments 4, 5 and 6.
    expect(counts(['video', 'text'], attention)).toEqual([528_623_872 + 10_752, 7_968_512, 536_105_728])
    expect(counts(['video', 'text'], [...attention, 'fc1', 'fc2']).slice(1)).toEqual([13_375_232, 541_512_448])
    expect(counts(['video', 'audio', 'text'], [...attention, 'fc1', 'fc2'])).toEqual([
      832_934_144 + 16_128,
      20_725_504,
      852_905_984,
    ])
    // Experiment 10, whose heads keep their matrices and train their nine biases.
    expect(counts(['video', 'text'], [...attention, 'fc1', 'fc2'], true)).toEqual([
      528_651_529, 13_375_241, 541_529_353,
    ])
  })
})
