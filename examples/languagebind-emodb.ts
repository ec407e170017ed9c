/**
 * Classify emotions of Emo-DB from audio alone, each actor with a model trained on the others:
 * `npx tsx examples/languagebind-emodb.ts --data EMODB --config examples/configs/languagebind/emodb-whisper.yaml`, with the
 * options of `voxtorch emotion train`. EMODB/labels.csv has the columns file, actor, emotion and text.
 */
import { join } from 'node:path'
import * as lb from 'voxtorch/emotion'
import { heldOutActors, readEmoDb } from './languagebind-emodb-actors.js'

const { options } = await lb.readEmotionArguments(process.argv.slice(2))
const settings = lb.emotionTrainingOfArguments(options)
const data = await readEmoDb(options.data ?? 'emodb')

// How a clip differs from what is usual for its actor.
const features = settings.cache ?? join(settings.outputDir, 'features')
const cache = lb.FeatureCache.open(features)
const encoders: lb.EmotionEncoder[] = []
for (const encoder of await lb.encodersOfArguments(options))
  encoders.push((await lb.speakerNormalized(encoder, data.dialogs, { cache })) as lb.EmotionEncoder)
await cache.close()

await heldOutActors(data, (parts, actor) =>
  lb.trainEmotion({
    ...{ ...settings, data: parts, encoders, cache: features },
    outputDir: join(settings.outputDir, actor),
  }),
)
