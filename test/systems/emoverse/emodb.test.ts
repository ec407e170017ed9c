import { existsSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { readCsv } from '../../../lib/files/index.js'
import {
  DecoderLM,
  manualSeed,
  publishedWeights,
  Random,
  setNumThreads,
  Tokenizer,
  writeJson,
} from '../../../lib/index.js'
import { EmoVerse, SpeechBranch, type SwiftRecord, trainEmoVerse } from '../../../lib/systems/emoverse/index.js'

const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))
const emodb = join(shared, 'emodb')
const whisper = 'whisper-base'
const hasWeights = publishedWeights().some((one) => one.name === whisper && one.present)
const wanted = process.env.VOXTORCH_EMOVERSE_EMODB === '1' && hasWeights && existsSync(join(emodb, 'labels.csv'))

const number = (name: string, usual: number) => Number(process.env[`VOXTORCH_EMOVERSE_${name}`] ?? usual)
const seed = number('SEED', 0)
/** Actors that are only measured with: a man and a woman, of the next seed others. */
const MEN = ['03', '10', '11', '12']
const WOMEN = ['16', '08', '13', '14']
const HELD_OUT = [MEN, WOMEN].map((actors) => actors[seed % actors.length] as string)
const LABELS = ['anger', 'boredom', 'disgust', 'fear', 'happiness', 'neutral', 'sadness'].map((one) => `${one}.`)

interface Clip {
  file: string
  actor: string
  text: string
  emotion: string
}

const questionOf = ({ text }: Clip) => `<audio>The person says: '${text}' <emotion>`

/** Dialogs of two turns: the same actor says two of the ten sentences, each of which is said in every mood. */
function dialogs(clips: readonly Clip[], passes: number, seed: number): SwiftRecord[] {
  const random = new Random(seed)
  return Array.from({ length: passes }, () =>
    clips.map((clip): SwiftRecord => {
      const others = clips.filter(({ actor, file }) => actor === clip.actor && file !== clip.file)
      const before = others[random.below(others.length)] as Clip
      return {
        history: [[questionOf(before), `${before.emotion}.`]],
        query: questionOf(clip),
        response: `${clip.emotion}.`,
        audios: [before.file, clip.file],
      }
    }),
  ).flat()
}

/** Every word is a token, and every mood: what is learnt is to hear, not to spell. */
async function wordTokenizer(clips: readonly Clip[]): Promise<Tokenizer> {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-words-'))
  const specials = ['<|im_start|>', '<|im_end|>', '<unk>']
  const texts = clips.flatMap((clip) => [
    questionOf(clip).replace('<audio>', '<Speech> </Speech> user assistant '),
    ...LABELS,
  ])
  const words = [...new Set([...specials, ...texts.flatMap((text) => text.split(/\s+/))])].filter((word) => word !== '')
  await writeJson(join(folder, 'tokenizer.json'), {
    version: '1.0',
    added_tokens: specials.map((content, id) => ({ id, content, special: true, normalized: false })),
    pre_tokenizer: { type: 'WhitespaceSplit' },
    model: { type: 'WordLevel', unk_token: '<unk>', vocab: Object.fromEntries(words.map((word, id) => [word, id])) },
  })
  await writeJson(join(folder, 'tokenizer_config.json'), { eos_token: '<|im_end|>', unk_token: '<unk>' })
  return Tokenizer.fromPretrained(folder)
}

// A minute on two cores.
it.skipIf(!wanted)(
  `hears in Emo-DB's dialogs what their words do not say (VOXTORCH_EMOVERSE_EMODB=1, ../shared/data/emodb, ${whisper})`,
  { timeout: 0 },
  async () => {
    setNumThreads(number('THREADS', 2))
    const home = process.env.VOXTORCH_EMOVERSE_OUTPUT ?? mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-emodb-'))
    const rows = (await readCsv(join(emodb, 'labels.csv'))) as unknown as Clip[]
    const heard = rows.filter(({ actor }) => !HELD_OUT.includes(actor))
    const unseen = rows.filter(({ actor }) => HELD_OUT.includes(actor))
    expect([heard.length > 250, unseen.length > 60, new Set(rows.map(({ text }) => text)).size]).toEqual([true, true, 10])
    const [data, test] = [dialogs(heard, 2, 2 * seed), dialogs(unseen, 1, 2 * seed + 1)]
    const speech = { whisper, qformer: { hiddenSize: 128, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 256 }, seed }
    const tokenizer = await wordTokenizer(rows)
    const llm = { vocabSize: tokenizer.vocabSize, hiddenSize: 128, intermediateSize: 256, numHiddenLayers: 3, numAttentionHeads: 4, numKeyValueHeads: 4, maxPositionEmbeddings: 1024 }
    const recipe = { learningRate: 2e-3, batchSize: 8, accumulation: 1, gradientCheckpointing: false, validationShare: 0, logSteps: 20, saveSteps: 1000 }
    const accuracy: Record<string, number> = {}
    for (const audio of ['read', 'ignore'] as const) {
      manualSeed(seed)
      const model = DecoderLM.fromConfig({ ...llm, initializerRange: 0.05 }, { seed })
      using emoverse = new EmoVerse({ model, tokenizer, system: null, audio, speech: await SpeechBranch.begin(speech, llm.hiddenSize) })
      // Nothing is known before: words are learnt too.
      const lora = { r: 32, loraAlpha: 64, loraDropout: 0.05, modulesToSave: ['embed_tokens', 'lm_head'] }
      const hears = audio === 'read' ? ({ speech: 'whole' } as const) : {}
      const trained = await trainEmoVerse(emoverse, {
        outputDir: join(home, audio),
        mediaRoot: emodb,
        saveModel: false,
        args: { progress: false },
        stages: [
          ...(audio === 'read' ? [{ name: 'ears', data: data.slice(0, heard.length), recipe: { ...recipe, epochs: 1 }, speech: 'alone' as const }] : []),
          { name: 'both', data, recipe: { ...recipe, epochs: number('EPOCHS', 3) }, lora, ...hears },
        ],
      })
      let right = 0
      for (const record of test) {
        const shares = await emoverse.scoreLabels(record, LABELS, { mediaRoot: emodb })
        const [best] = Object.entries(shares).sort(([, a], [, b]) => b - a)
        if (best?.[0] === record.response) right += 1
      }
      accuracy[audio] = right / test.length
      console.log(audio, accuracy[audio], trained.stages.map(({ name, seconds, globalStep }) => `${name}: ${globalStep} steps, ${seconds.toFixed(0)} s`))
    }
    expect((accuracy.read as number) - (accuracy.ignore as number)).toBeGreaterThanOrEqual(0.15)
  },
) // biome-ignore format: long lines
