import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  arange,
  Bert,
  ConfigError,
  embedSentences,
  manualSeed,
  noGrad,
  publishedWeights,
  Roberta,
  scope,
  type Tensor,
  Tokenizer,
  tensor,
  WavLM,
  WhisperEncoder,
  writeWav,
} from '../../../../lib/index.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { FeatureCache } from '../../../../lib/systems/emotion/data/features.js'
import { EmotionTextEncoder } from '../../../../lib/systems/emotion/network/text-encoder.js'
import { EmotionFbankEncoder, EmotionVoiceEncoder } from '../../../../lib/systems/emotion/network/voice-encoder.js'
import { difference } from '../../../helpers.js'
import { wordPieces } from '../../../models/word-pieces.js'
import { PATIENCE } from '../../../patience.js'

const texts = ['Who took it away ?', 'They did , I think .', '', 'Fine .']
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-encoders-'))
const wav = (name: string) => join(folder, name)
await scope(async () => {
  await writeWav(wav('long.wav'), arange(8000).mul(0.3).sin().mul(0.4), { sampleRate: 16000 })
  await writeWav(wav('short.wav'), arange(4800).mul(0.05).sin().mul(0.2), { sampleRate: 16000 })
})
const dialog: EmotionDialog = {
  ...{ id: '1', source: 'made' },
  utterances: texts.map((text, i) => ({
    ...{ id: i + 1, text, speaker: i % 2 ? 'Ben' : 'Ann' },
    ...(i < 3 && {
      clip: { audio: wav(i === 0 ? 'long.wav' : 'short.wav'), ...(i === 2 && { start: 0.1, end: 0.25 }) },
    }),
  })),
}

const minilm = publishedWeights().find(({ name }) => name === 'minilm')

describe.skipIf(!minilm?.present)('EmotionTextEncoder, with minilm of the cache', () => {
  it(
    'is the mean that sentence-transformers takes, and reads what was said before',
    async () => {
      const encoder = await EmotionTextEncoder.fromPretrained('minilm')
      const read = (one: EmotionTextEncoder) =>
        Promise.all([0, 1, 3].map(async (place) => (await one.read(dialog, place))!))
      const vectors = await noGrad(async () => encoder.encode(await read(encoder)))
      const tokenizer = await Tokenizer.fromPretrained(minilm?.folder as string)
      const wanted = await embedSentences(encoder.network as Bert, tokenizer, [texts[0]!, texts[1]!, texts[3]!])
      expect(difference(vectors, wanted)).toBeLessThan(1e-5)
      expect([await encoder.read(dialog, 2), await encoder.source(dialog, 2)]).toEqual([undefined, undefined])
      const history = new EmotionTextEncoder(encoder.network, encoder.tokenizer, { history: 2, names: true })
      const long = (await history.read(dialog, 1))!
      expect(encoder.tokenizer.decode(long.ids.slice(long.begin), { skipSpecialTokens: true })).toMatch(/^ben/)
      const narrow = new EmotionTextEncoder(encoder.network, encoder.tokenizer, { history: 2, maxLength: 10 })
      expect((await narrow.read(dialog, 1))!.begin).toBe(1)
      expect(difference(await noGrad(() => history.encode([long])), vectors.narrow(0, 1, 1))).toBeGreaterThan(0.01)
      // Short ones are not filled up to the long ones among them, and each stays at its place.
      const mixed = ['Fine .', 'away '.repeat(60), texts[0]!, 'And so on . '.repeat(4), 'Fine .', 'no '.repeat(50)].map(
        (text) => ({ ids: encoder.tokenizer.encode(text).inputIds, begin: 1 }),
      )
      const together = await noGrad(() => encoder.encode(mixed))
      for (const [i, one] of mixed.entries()) {
        const alone = await noGrad(() => encoder.encode([one]))
        expect(difference(together.narrow(0, i, 1), alone), `${i}`).toBeLessThan(1e-5)
      }
      const [words] = await encoder.words([texts[0]!, ''])
      expect(words?.length).toBe(5)
      const alone = await encoder.words(['away'])
      expect(alone[0]?.[0]?.length).toBe(384)
      expect(encoder.reference).toEqual({
        encoder: 'text',
        from: 'minilm',
        history: 0,
        names: false,
        maxLength: 128,
        pooling: 'mean',
      })
      expect(() => new EmotionTextEncoder(encoder.network, encoder.tokenizer, { maxLength: 1000 })).toThrow(ConfigError)
    },
    PATIENCE,
  )
})

describe('EmotionTextEncoder', () => {
  const network = () => {
    manualSeed(3)
    const size = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 }
    return Bert.fromConfig({ ...size, vocabSize: 8, maxPositionEmbeddings: 24 }).eval()
  }
  const said = ['one two', 'three', 'two two one'].map((text, i) => ({
    id: i + 1,
    text,
    speaker: ['one', 'two'][i % 2]!,
  }))
  const talk: EmotionDialog = { id: '1', source: 'made', utterances: [...said, { id: 4, text: ' ', speaker: '' }] }
  const all = async (encoder: EmotionTextEncoder) =>
    noGrad(async () =>
      encoder.encode(await Promise.all([0, 1, 2].map(async (place) => (await encoder.read(talk, place))!))),
    )

  it('is the mean over the tokens of an utterance, which see what was said before where that is wanted', async () => {
    const [bert, tokenizer] = [network(), await wordPieces()]
    const plain = new EmotionTextEncoder(bert, tokenizer)
    const texts = said.map(({ text }) => text)
    expect(difference(await all(plain), await embedSentences(bert, tokenizer, texts))).toBeLessThan(1e-5)
    const first = new EmotionTextEncoder(bert, tokenizer, { pooling: 'cls' })
    expect(difference(await all(first), await embedSentences(bert, tokenizer, texts, { pooling: 'cls' }))).toBeLessThan(
      1e-5,
    )
    expect(await plain.read(talk, 3)).toBeUndefined()
    expect(await plain.source(talk, 3)).toBeUndefined()
    const history = new EmotionTextEncoder(bert, tokenizer, { history: 2, names: true })
    const ids = (text: string) => tokenizer.encode(text, { addSpecialTokens: false }).inputIds
    const end = tokenizer.tokenToId('[SEP]') as number
    const before = [...ids('one: one two'), end, ...ids('two: three'), end]
    const begin = 1 + before.length
    const input = (await history.read(talk, 2))!
    expect(input).toEqual({ ids: [tokenizer.tokenToId('[CLS]'), ...before, ...ids('one: two two one'), end], begin })
    // The mean is over its own tokens and its end alone.
    const { lastHiddenState } = await noGrad(() => bert.forward({ inputIds: tensor([input.ids], { dtype: 'int64' }) }))
    const own = lastHiddenState.narrow(1, begin, input.ids.length - begin).mean([1])
    expect(difference(await noGrad(() => history.encode([input])), own)).toBeLessThan(1e-5)
    // The oldest goes first where there is no room.
    const short = new EmotionTextEncoder(bert, tokenizer, { history: 2, maxLength: 7 })
    expect((await short.read(talk, 2))!.ids.length).toBe(7)
    expect((await short.read(talk, 2))!.begin).toBe(3)
  })

  it('reads with a RoBERTa and its tokens, from a folder', async () => {
    const where = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-roberta-'))
    const pieces = [
      '<s>',
      '<pad>',
      '</s>',
      '<unk>',
      '<mask>',
      'Ġ',
      ...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.?',
    ]
    writeFileSync(join(where, 'vocab.json'), JSON.stringify(Object.fromEntries(pieces.map((piece, i) => [piece, i]))))
    writeFileSync(join(where, 'merges.txt'), '#version: 0.2\n')
    writeFileSync(join(where, 'tokenizer_config.json'), JSON.stringify({ tokenizer_class: 'RobertaTokenizer' }))
    manualSeed(3)
    const size = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 }
    const roberta = Roberta.fromConfig({
      ...size,
      vocabSize: pieces.length,
      maxPositionEmbeddings: 30,
      padTokenId: 1,
    }).eval()
    await roberta.save(where)
    const encoder = await EmotionTextEncoder.fromPretrained(where, { maxLength: 24 })
    expect(encoder.network).toBeInstanceOf(Roberta)
    const read = (await Promise.all([0, 1].map((place) => encoder.read(talk, place)))) as {
      ids: number[]
      begin: number
    }[]
    const letters = (text: string) => [...text].map((letter) => pieces.indexOf(letter === ' ' ? 'Ġ' : letter))
    expect(read[1]).toEqual({ ids: [0, ...letters('three'), 2], begin: 1 })
    const vectors = await noGrad(() => encoder.encode(read))
    for (const [i, { ids }] of read.entries()) {
      const { lastHiddenState } = await noGrad(() => roberta.forward({ inputIds: tensor([ids], { dtype: 'int64' }) }))
      expect(difference(vectors.narrow(0, i, 1), lastHiddenState.mean([1])), `${i}`).toBeLessThan(1e-5)
    }
  })

  it('has another key for another network, recipe or tokenizer', async () => {
    const tokenizer = await wordPieces()
    const plain = new EmotionTextEncoder(network(), tokenizer)
    const other = Bert.fromConfig({ ...plain.network.config, hiddenAct: 'relu' })
    other.loadStateDict(plain.network.stateDict())
    const key = (encoder: EmotionTextEncoder) => FeatureCache.keyOf(encoder as never)
    expect(await key(new EmotionTextEncoder(network(), tokenizer))).toBe(await key(plain))
    for (const changed of [
      new EmotionTextEncoder(other, tokenizer),
      new EmotionTextEncoder(network(), tokenizer, { pooling: 'cls' }),
    ])
      expect(await key(changed)).not.toBe(await key(plain))
    const turned = new EmotionTextEncoder(network(), await wordPieces(['three', 'two', 'one']))
    expect(await turned.source(talk, 0)).not.toBe(await plain.source(talk, 0))
  })
})

describe('EmotionVoiceEncoder', () => {
  const small = {
    hiddenSize: 16,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 24,
    convDim: [8, 8, 8, 8, 8, 8, 8],
    featExtractNorm: 'layer' as const,
    doStableLayerNorm: true,
    numConvPosEmbeddings: 8,
    numConvPosEmbeddingGroups: 2,
    applySpecAugment: false,
  }
  const whisper = {
    dModel: 16,
    encoderLayers: 2,
    encoderAttentionHeads: 2,
    encoderFfnDim: 24,
    numMelBins: 80,
    maxSourcePositions: 100,
  }

  it.each(['WavLM', 'Whisper'])('%s: a clip’s vector does not depend on what else is in the batch', async (kind) => {
    manualSeed(2)
    const network = kind === 'WavLM' ? WavLM.fromConfig(small) : WhisperEncoder.fromConfig(whisper)
    const encoder = new EmotionVoiceEncoder(network.eval(), kind === 'WavLM' ? {} : { maxSeconds: 2 })
    expect(encoder.size).toBe(32)
    const clips = (await Promise.all([0, 1, 2].map((place) => encoder.read(dialog, place)))) as Tensor[]
    expect(clips.map((clip) => clip.size(0))).toEqual([8000, 4800, 2400])
    expect(await encoder.read(dialog, 3)).toBeUndefined()
    const together = await noGrad(() => encoder.encode(clips))
    for (const [i, clip] of clips.entries()) {
      const alone = await noGrad(() => encoder.encode([clip]))
      expect(difference(together.narrow(0, i, 1), alone), `clip ${i}`).toBeLessThan(kind === 'WavLM' ? 0.05 : 1e-3)
    }
    expect(await encoder.source(dialog, 1)).not.toBe(await encoder.source(dialog, 2))
  })

  it('without a network: means and spreads of bands', async () => {
    const encoder = new EmotionFbankEncoder({ nMels: 10 })
    const clips = (await Promise.all([0, 1].map((place) => encoder.read(dialog, place)))) as Tensor[]
    const vectors = await encoder.encode(clips)
    expect(vectors.shape).toEqual([2, 80])
    expect(vectors.isfinite().all().item()).toBe(true)
    // A steady tone does not change.
    expect(Number(vectors.select(0, 0).narrow(0, 40, 10).abs().max().item())).toBeLessThan(0.5)
  })
})
