import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { chatModels } from '../../../lib/cli/chat-models.js'
import { serve, setNumThreads, tensor, writeWav } from '../../../lib/index.js'
import { clip, tinySalmonn } from '../../models/salmonn.js'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-serve-salmonn-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

it('`voxtorch serve salmonn` answers a question about a clip, streamed as whole', async () => {
  setNumThreads(1)
  const model = await tinySalmonn()
  await model.save(directory, { whole: true })
  const load = chatModels.salmonn
  const chat = await load!(directory, { dtype: 'float32' })
  const server = await serve(chat, { port: 0 })
  try {
    const wav = join(directory, 'clip.wav')
    await writeWav(wav, tensor(clip(3, 0.9)), { sampleRate: 16000 })
    const content = [
      { type: 'input_audio', input_audio: { format: 'wav', data: readFileSync(wav).toString('base64') } },
      { type: 'text', text: 'what is it?' },
    ]
    const ask = (stream: boolean) =>
      fetch(`${server.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ stream, max_tokens: 6, messages: [{ role: 'user', content }] }),
      })
    const whole = await ask(false)
    expect(whole.status).toBe(200)
    const answer = ((await whole.json()) as { choices: { message: { content: string } }[] }).choices[0]!.message.content
    expect(answer.length).toBeGreaterThan(0)
    const events = (await (await ask(true)).text()).split('\n').filter((line) => line.startsWith('data: {'))
    const parts = events.map((line) => JSON.parse(line.slice(6)).choices[0]?.delta?.content ?? '')
    expect(parts.join('')).toBe(answer)
  } finally {
    await server.close()
  }
})
