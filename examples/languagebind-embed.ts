/**
 * Sort the videos, audio files and images of a folder by similarity to a text:
 * `npx tsx examples/languagebind-embed.ts DIR "a dog barks"`. `--video`, `--audio` and `--image` name LanguageBind's encoders,
 * folders or repositories of the hub. Videos need npm's `node-av`, images `sharp`.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LanguageBind } from 'voxtorch'

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    video: { type: 'string', default: 'LanguageBind/LanguageBind_Video_FT' },
    audio: { type: 'string', default: 'LanguageBind/LanguageBind_Audio_FT' },
    image: { type: 'string', default: 'LanguageBind/LanguageBind_Image' },
  },
})
const [folder = '.', sentence = 'a dog barks'] = positionals
const files = (await readdir(folder)).sort().map((name) => join(folder, name))
const kinds = {
  video: /\.(mp4|mkv|webm|avi|mov)$/i,
  audio: /\.(wav|mp3|flac|ogg|opus)$/i,
  image: /\.(jpe?g|png|webp|ppm)$/i,
}

for (const modality of ['video', 'audio', 'image'] as const) {
  const clips = files.filter((file) => kinds[modality].test(file))
  if (clips.length === 0) continue
  const model = await LanguageBind.fromPretrained({ [modality]: values[modality] })
  const found = await model.embed({ text: sentence, [modality]: clips } as { text: string; audio: string[] }, {
    useTemp: false,
  })
  const cosines = model.similarity(Reflect.get(found, modality), found.text).toArray() as number[][]
  const sorted = clips.map((clip, i) => ({ clip, cosine: cosines[i]?.[0] ?? 0 })).sort((a, b) => b.cosine - a.cosine)
  for (const { clip, cosine } of sorted) console.log(`${cosine.toFixed(3)}  ${clip}`)
  model.dispose()
}
