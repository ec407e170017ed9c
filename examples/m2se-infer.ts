/**
 * Asks an EmoVerse that sees about the photographs of a folder: what emotion each shows, with the likelihood of every label, and
 * what the face does.
 *
 * `npx tsx examples/m2se-infer.ts --model runs/emoverse/model --images FOLDER [--words "I see."] [--device cuda]`
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import * as ev from 'voxtorch/emoverse'

const text = { type: 'string' } as const
const { values } = parseArgs({ options: { model: text, images: text, words: text, device: text } })
const { model: name, images: folder, words = '', device = 'cpu' } = values
if (name === undefined || folder === undefined)
  throw new vt.ConfigError('m2se-infer: expected --model DIR and --images DIR')

using model = await ev.EmoVerse.fromPretrained(name, { device: device as vt.Device })
const said = words === '' ? '' : `The person says: "${words}" `
const emotion = `${said}<emotion> Please determine which emotion label in the video represents: anger, sad, surprise, disgust, happy, neutral or fear.`
for (const file of readdirSync(folder).filter((one) => /\.(jpe?g|png|webp|ppm|pgm)$/i.test(one))) {
  const images = [join(folder, file)]
  const shares = await model.scoreLabels({ query: emotion, images }, ev.EMOTION_LABELS.mosei)
  const [best] = Object.entries(shares).sort(([, a], [, b]) => b - a)
  console.log(`${file}: ${best?.[0]} ${(100 * (best?.[1] ?? 0)).toFixed(1)} %`)
  // The image is in the cache: only the question is computed.
  const query = `${said}<expression> Detail the facial expressions used in the image.`
  for await (const piece of model.stream({ query, images }, { maxNewTokens: 64 })) process.stdout.write(piece.text)
  process.stdout.write('\n')
}
