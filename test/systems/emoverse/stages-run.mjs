// Trainings in stages that the tests kill: `node stages-run.mjs OUTPUT MEDIA`, two stages with the pictures of a folder, whose features
// go to OUTPUT/features; where it has sounds too, a stage of the ears alone stands before, they train beside the adapter in the next, and
// stay as they are in the last. Prints "step N" after each step, and "NAME ends" when a stage is over. There is dropout in the adapters
// and the ears, so that generators count.

import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setNumThreads } from 'voxtorch'
import { trainEmoVerse } from 'voxtorch/emoverse'
import { tinyModel } from './tiny-model.mjs'

const [outputDir, media] = process.argv.slice(2)
setNumThreads(1)
const files = readdirSync(media).sort()
const [images, audios] = ['.ppm', '.wav'].map((ending) => files.filter((name) => name.endsWith(ending)))
const emoverse = await tinyModel({ hears: audios.length > 0 })
const records = Array.from({ length: 24 }, (_, i) => ({
  query: ` ${['a', 'b', 'c'][i % 3]} a b`,
  response: ` ${['Joy', 'Fear', 'sad'][i % 3]} `,
  images: [images[i % images.length]],
  ...(audios.length > 0 && { audios: [audios[i % audios.length]] }),
}))
const recipe = {
  ...{ learningRate: 1e-2, epochs: 2, batchSize: 4, accumulation: 1, logSteps: 3, saveSteps: 2, evalSteps: 4 },
  gradientCheckpointing: false,
}
const seeing = [
  { data: records, recipe: { ...recipe, validationShare: 0.2 } },
  { data: records, recipe, lora: { r: 4 }, projector: 'whole' },
]
const hearing = [
  { data: records, recipe: { ...recipe, validationShare: 0.2 }, speech: 'alone' },
  { data: records, recipe: { ...recipe, validationShare: 0.2 }, speech: 'whole', projector: 'whole' },
  { data: records, recipe, lora: { r: 4 } },
]
await trainEmoVerse(emoverse, {
  ...{ outputDir, mediaRoot: media, visionCache: join(outputDir, 'features') },
  stages: audios.length > 0 ? hearing : seeing,
  args: { progress: false, reportTo: ['jsonl'] },
  callbacks: [
    {
      onStepEnd({ state }) {
        console.log(`step ${state.globalStep}`)
      },
      onTrainEnd({ args }) {
        console.log(`${basename(args.outputDir)} ends`)
      },
    },
  ],
})
console.log('done')
