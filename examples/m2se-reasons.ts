/**
 * Generate emotion reasons with a chat model, for `voxtorch emoverse data --reasons`: any model of `voxtorch serve`, with the
 * image of a clip if the model accepts images. Existing lines of the output are kept.
 *
 * `npx voxtorch serve text --model smollm2-135m-instruct`, then
 * `npx tsx examples/m2se-reasons.ts --clips clips.jsonl --output reasons.jsonl [--url http://127.0.0.1:8080] [--api-key KEY]`
 *
 * A line of the clips is `{ "id": "dia0_utt0", "text": "Oh no!", "emotion": "fear", "image": "face.jpg" }`, the last two if known.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { extname } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'
import { readJsonl } from 'voxtorch/files'

const text = { type: 'string' } as const
const { values } = parseArgs({ options: { clips: text, output: text, url: text, 'api-key': text } })
const { clips, output, url = 'http://127.0.0.1:8080', 'api-key': key } = values
if (clips === undefined || output === undefined) throw new vt.ConfigError('Say --clips FILE and --output FILE')

interface Clip {
  id: string
  text: string
  emotion?: string
  image?: string
}

const known = new Set<string>()
if (existsSync(output)) for await (const line of readJsonl(output)) known.add((line as { id: string }).id)
for await (const line of readJsonl(clips)) {
  const { id, text: said, emotion = 'what the person feels', image } = line as unknown as Clip
  if (known.has(id)) continue
  const question = `A person says: "${said}" Explain ${emotion} in one or two sentences, by the words${image ? ' and the face' : ''}.`
  const type = `image/${image === undefined ? '' : extname(image).slice(1).replace('jpg', 'jpeg')}`
  const address = image && `data:${type};base64,${readFileSync(image).toString('base64')}`
  const picture = address ? [{ type: 'image_url', image_url: { url: address } }] : []
  const content = [...picture, { type: 'text', text: question }]
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...(key && { Authorization: `Bearer ${key}` }) },
    body: JSON.stringify({ messages: [{ role: 'user', content }], max_tokens: 96, temperature: 0 }),
  })
  const { choices, error } = (await response.json()) as {
    choices?: { message: { content: string } }[]
    error?: { message: string }
  }
  if (error) throw new vt.DataError(`${id}: ${error.message}`, { id })
  appendFileSync(output, `${JSON.stringify({ id, text: choices?.[0]?.message.content.trim() })}\n`)
}
