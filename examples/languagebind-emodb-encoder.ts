/**
 * Classify emotions of Emo-DB with LanguageBind's audio features and a small encoder of its architecture, trained from scratch on
 * the other actors:
 * `npx tsx examples/languagebind-emodb-encoder.ts --data EMODB --config examples/configs/languagebind/emodb-encoder.yaml`, with the
 * options of `voxtorch emotion train`. EMODB/labels.csv has the columns file, actor, emotion and text.
 */
import { join } from 'node:path'
import * as vt from 'voxtorch'
import * as lb from 'voxtorch/emotion'
import { heldOutActors, readEmoDb } from './languagebind-emodb-actors.js'

const { options } = await lb.readEmotionArguments(process.argv.slice(2))
const settings = lb.emotionTrainingOfArguments(options)
const folder = options.data ?? 'emodb'
const data = await readEmoDb(folder)

// Two seconds of 112 bands; a clip is repeated until it fills them. Each band then says how it differs from what is usual for
// the actor.
const frontEnd = { nMels: 112, targetLength: 224 }
const sounds = new Map<string, vt.Tensor>()
for (const actor of data.actors) {
  const own = data.rows.filter((row) => row.actor === actor)
  const all = await vt.languageBindAudio(
    own.map(({ file }) => join(folder, file)),
    frontEnd,
  )
  const usual = all.mean([0, 1, 3], true)
  const spread = all.sub(usual).square().mean([0, 1, 3], true).add(1e-6).sqrt()
  for (const [i, { file }] of own.entries()) sounds.set(file, all.narrow(0, i, 1).sub(usual).div(spread))
}
const vision = { numHiddenLayers: 2, hiddenSize: 96, intermediateSize: 192, numAttentionHeads: 4, hiddenAct: 'gelu' }
const text = { numHiddenLayers: 1, hiddenSize: 8, intermediateSize: 8, numAttentionHeads: 1, vocabSize: 8 }

/** Return an encoder with random weights, without normalization of its embeddings. */
function freshEncoder(): lb.EmotionEncoder {
  const size = { numMelBins: frontEnd.nMels, targetLength: frontEnd.targetLength, patchSize: 14, imageSize: 224 }
  const visionConfig = { ...vision, ...size, forcePatchDropout: 0.3 }
  const bind = vt.LanguageBind.fromConfig(
    { audio: { textConfig: text, visionConfig, projectionDim: 64 } },
    { seed: options.seed ?? 1 },
  )
  const encoder = new lb.LanguageBindEmotionEncoder(bind, 'audio', { useTemp: false })
  encoder.read = async (dialog) => sounds.get(dialog.source)?.clone()
  return encoder as unknown as lb.EmotionEncoder
}

await heldOutActors(data, (parts, actor) =>
  lb.trainEmotion({
    ...{ ...settings, data: parts, encoders: [freshEncoder()], tune: 'full' },
    outputDir: join(settings.outputDir, actor),
  }),
)
