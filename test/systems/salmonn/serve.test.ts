import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { chatModels } from '../../../lib/cli/chat-models.js'
import { readAudio, type Salmonn, setNumThreads, tensor, writeWav } from '../../../lib/index.js'
import { serve } from '../../../lib/serve/index.js'
import { SalmonnChat, type SalmonnChatMessage, type SalmonnChatPart } from '../../../lib/systems/salmonn/index.js'
import { withPage } from '../../browser.mjs'
import { clip, tinySalmonn } from './network/tiny.js'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-serve-salmonn-'))
const wav = join(directory, 'clip.wav')
const other = join(directory, 'slow.wav')
let model: Salmonn
beforeAll(async () => {
  setNumThreads(1)
  model = await tinySalmonn()
  await model.save(directory, { whole: true })
  await writeWav(wav, tensor(clip(3, 0.9)), { sampleRate: 16000 })
  await writeWav(other, tensor(clip(5, 0.7)), { sampleRate: 8000 })
})
afterAll(() => {
  model.dispose()
  rmSync(directory, { recursive: true, force: true })
})

it('`voxtorch serve salmonn` answers a question about a clip, streamed as whole', async () => {
  const load = chatModels.salmonn
  const chat = await load!(directory, { dtype: 'float32' })
  const server = await serve(chat, { port: 0 })
  try {
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
    for (const type of ['image_url', 'video_url']) {
      const refused = await fetch(`${server.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ messages: [{ role: 'user', content: [{ type, [type]: { url: 'data:x' } }] }] }),
      })
      const { error } = (await refused.json()) as { error: { message: string } }
      expect([refused.status, error.message]).toEqual([
        400,
        expect.stringMatching(/expected text or audio, the input modalities of salmonn, got (image|video)_url/),
      ])
    }
  } finally {
    await server.close()
  }
})

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const chromium =
  process.env.CHROMIUM !== undefined ||
  (process.env.PATH ?? '').split(delimiter).some((path) => names.some((name) => existsSync(join(path, name))))

// biome-ignore lint/suspicious/noExplicitAny: the page's own world has no types here
declare const document: any, MutationObserver: any, window: any

it.skipIf(!chromium)(
  'the page asks a real model: a dropped file, the answer as it is written, a second turn',
  async () => {
    const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url))
    const line = ['serve', 'salmonn', '--model', directory, '--dtype', 'float32', '--port', '0', '--quiet']
    const server = spawn(process.execPath, [main, ...line], { stdio: ['ignore', 'pipe', 'inherit'] })
    try {
      const [said] = (await once(createInterface({ input: server.stdout }), 'line')) as [string]
      const url = /http:\/\/\S+(?=;)/.exec(said)?.[0] as string
      const messages: SalmonnChatMessage[] = []
      using chat = new SalmonnChat(model)
      /** What the model says to the same, in this process. */
      const wanted = async (text: string, file: string) => {
        const content: SalmonnChatPart[] = [
          { type: 'audio', samples: await readAudio(file) },
          { type: 'text', text },
        ]
        messages.push({ role: 'user', content })
        let answer = ''
        for await (const step of chat.stream(messages, { maxNewTokens: 12 })) answer += step.text
        messages.push({ role: 'assistant', content: [{ type: 'text', text: answer }] })
        return answer
      }
      await withPage(url, async (page) => {
        await page.until(() => document.getElementById('model').textContent === 'salmonn')
        await page.evaluate(() => {
          document.getElementById('tokens').value = '12'
          window.seen = []
          new MutationObserver(() => {
            const text = [...document.querySelectorAll('.assistant p:not(.note)')].at(-1)?.textContent ?? ''
            if (text !== window.seen.at(-1)) window.seen.push(text)
          }).observe(document.getElementById('log'), { childList: true, characterData: true, subtree: true })
        })
        const ask = async (file: string, question: string) => {
          await page.drop('main', [file])
          await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
          await page.click('#prompt')
          await page.type(question)
          await page.evaluate(() => {
            window.seen = []
          })
          await page.press('Enter')
          await page.until(() => document.querySelector('.assistant') && document.getElementById('stop').hidden)
          return page.evaluate(() => ({
            seen: window.seen,
            error: document.getElementById('error').hidden ? null : document.getElementById('error').textContent,
            turns: [...document.querySelectorAll('.turn')].map(
              (turn) => turn.querySelector('p:not(.note)')?.textContent,
            ),
            clips: document.querySelectorAll('.turn .clip').length,
          }))
        }
        const first = await ask(wav, 'What is it?')
        const answer = await wanted('What is it?', wav)
        expect(answer.length).toBeGreaterThan(3)
        expect(first).toMatchObject({ error: null, turns: ['What is it?', answer], clips: 1 })
        // It grew: not all of it came at once.
        expect(first.seen.length).toBeGreaterThan(2)
        for (const text of first.seen) expect(answer.startsWith(text)).toBe(true)
        const second = await ask(other, 'And this?')
        const next = await wanted('And this?', other)
        expect(second).toMatchObject({ error: null, turns: ['What is it?', answer, 'And this?', next], clips: 2 })
        expect(page.problems).toEqual([])
      })
    } finally {
      server.kill()
      await once(server, 'exit')
    }
  },
)
