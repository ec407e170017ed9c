import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../../lib/cli/chat-models.js'
import { readAudio, setNumThreads, tensor, writeWav } from '../../../lib/index.js'
import { type Served, serve } from '../../../lib/serve/index.js'
import { GriffinLimVocoder, Usdm, UsdmChat, unitFrames } from '../../../lib/systems/usdm/index.js'
import { voxtorch } from '../../cli/run.js'
import { settledTensors } from '../../helpers.js'
import { ask, begin, call, sound, user } from '../../serve/client.js'
import { sineWav } from '../../serve/models.mjs'
import {
  chirp,
  SCRIPT,
  type Script,
  scriptedLlm,
  TinyVoicebox,
  tinySpeech,
  tinyTokenizer,
  tinyUnits,
} from './tiny-parts.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-chat-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

afterEach(() => {
  vi.restoreAllMocks()
})

let parts: { tokenizer: Awaited<ReturnType<typeof tinyTokenizer>>; units: Awaited<ReturnType<typeof tinyUnits>> }
beforeAll(async () => {
  setNumThreads(1)
  parts = { tokenizer: await tinyTokenizer(join(folder, 'text')), units: await tinyUnits() }
})

const open = (script: Script = {}, silent = false) => {
  const voicebox = new TinyVoicebox()
  const llm = scriptedLlm(parts.tokenizer, { ...SCRIPT, ...script })
  const usdm = new Usdm({ llm, ...parts, ...(silent ? {} : { voicebox, vocoder: new GriffinLimVocoder() }) })
  return { usdm, voicebox, llm }
}

describe('the API', () => {
  let served: Served
  let chat: UsdmChat
  afterEach(async () => {
    await served.close({ now: true })
    chat.dispose()
  })
  const start = async (script: Script = {}, options: object = {}) => {
    const made = open(script)
    chat = new UsdmChat(made.usdm, { steps: 2 })
    served = await serve(chat, options)
    return { url: served.url, ...made }
  }
  const spoken = { modalities: ['text', 'audio'] }
  const question = (seconds = 0.5) => user(sound(sineWav({ seconds })))

  it('takes 20 requests at once among oversize, malformed and aborted ones, and gives the memory back', async () => {
    const limits = { maxQueued: 100, maxBodyBytes: 400_000, queueTimeout: 600, answerTimeout: 600, bodyTimeout: 600 }
    const { url } = await start({}, limits)
    const round = async () => {
      const good = Array.from({ length: 20 }, (_, i) =>
        ask(url, { messages: [question(0.3 + 0.02 * i)], ...spoken, stream: i % 2 === 0 }),
      )
      const large = Array.from({ length: 3 }, () => ask(url, { messages: [question(20)], ...spoken }))
      const broken = ['{', '{"messages":7}', '{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}'].map(
        (body) => ask(url, body),
      )
      const aborted = Array.from({ length: 6 }, (_, i) => {
        const request = begin(url, { messages: [question(0.5)], ...spoken, stream: true })
        setTimeout(request.abort, 40 * i)
        return request.first.then(
          () => 'answered',
          () => 'aborted',
        )
      })
      const [answers, refused, faults] = await Promise.all([Promise.all(good), Promise.all(large), Promise.all(broken)])
      await Promise.all(aborted)
      expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200))
      for (const answer of answers) expect(answer.text).toContain('ok')
      expect(refused.map(({ status }) => status)).toEqual([413, 413, 413])
      expect(faults.map(({ status }) => status)).toEqual([400, 400, 400])
    }
    await round()
    const idle = async () => (await call(url, '/health')).json
    await expect.poll(idle).toMatchObject({ running: 0, queued: 0 })
    const before = await settledTensors()
    await round()
    await expect.poll(idle).toMatchObject({ running: 0, queued: 0 })
    await expect.poll(() => settledTensors()).toBe(before)
    expect(chat.metrics()).toEqual({ batch_running: 0, batch_waiting: 0 })
  }, 300_000)
})

describe('voxtorch usdm respond', () => {
  const run = (...commands: string[][]) => voxtorch(commands.map((words) => ['usdm', 'respond', ...words]))

  it('answers files, turn after turn, and writes a folder that is served', async () => {
    const { usdm } = open({}, true)
    const saved = join(folder, 'saved')
    await new Usdm({ llm: usdm.llm, ...parts, vocoder: new GriffinLimVocoder() }).save(saved)
    const wav = join(folder, 'question.wav')
    await writeWav(wav, tensor(chirp(0.5)), { sampleRate: 16_000 })
    const again = join(folder, 'again')
    const parts_ = [
      ...['--model', join(saved, 'llm'), '--encoder', join(saved, 'encoder')],
      ...['--kmeans', join(saved, 'kmeans.npy')],
    ]
    // With sound, by the command and by the example, which has the original's words.
    const whole = join(folder, 'whole')
    await new Usdm({ llm: usdm.llm, ...parts, ...tinySpeech() }).save(whole)
    const files = ['answer.wav', 'example.wav'].map((name) => join(folder, name)) as [string, string]
    const how = ['--seed', '3', '--reference_path', wav]
    const [told, shown, command, ...refused] = await run(
      ['--input_path', wav, wav, '--model', saved, '--text-only', '--json'],
      [wav, ...parts_, '--layer', '2', '--text-only', '--save', again],
      [wav, '--model', whole, '--output', files[0], '--solver-steps', '2', ...how],
      ['--model', saved],
      [wav, '--model', saved, '--text-only', '--output_path', 'x.wav'],
      [wav, '--model', saved, '--reference_path', wav],
      [wav, '--text-only', '--solver-steps', '3'],
      [wav, '--model', saved, '--output_path', 'x.wav'],
      [wav, '--model', saved, '--layer', '3'],
    )
    const wanted = { transcript: 'hi!', text: 'ok.', units: [5, 6, 7, 8, 9, 10, 11, 12], output: null }
    const lines = told?.stdout.trim().split('\n')
    expect(lines?.map((line) => JSON.parse(line))).toMatchObject([wanted, wanted])
    expect(shown?.stdout).toContain('heard: hi!\n  reply: ok. (0.2 s)')
    expect(JSON.parse(readFileSync(join(again, 'config.json'), 'utf8'))).toMatchObject({ model_type: 'usdm', layer: 2 })
    expect(command?.stdout).toContain(`  ${files[0]}`)
    expect([told, shown, command].map((one) => one?.status)).toEqual([0, 0, 0])
    const example = ['--import', 'tsx', 'examples/usdm-chat.ts', '--input_path', wav, '--output_path', files[1]]
    const words = [...example, '--model_cache_dir', whole, '--solver_steps', '2', ...how]
    expect((await promisify(execFile)(process.execPath, words)).stdout).toBe('heard: hi!\nreply: ok.\n')
    const sounds = await Promise.all(files.map(async (file) => (await readAudio(file)).samples))
    expect(sounds[0]?.shape).toEqual([256 * unitFrames(8)])
    expect(sounds[1]?.equal(sounds[0]!)).toBe(true)
    const served = (await chatModels.usdm!(whole, {})) as UsdmChat
    expect(served).toMatchObject({ name: 'usdm', outputModalities: ['text', 'audio'] })
    served.dispose()
    served.model.dispose()
    for (const [i, message] of [
      /expected an audio file of the question/,
      /--output: expected with audio output, got --text-only/,
      /--reference: expected with audio output, got no --output/,
      /--solver-steps: expected with audio output, got --text-only/,
      /expected a model with a Voicebox and a vocoder/,
      /--layer: expected a --model without its own parts, got .*, a complete USDM/,
    ].entries()) {
      expect(refused[i]).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(message) })
    }
  }, 300_000)
})
