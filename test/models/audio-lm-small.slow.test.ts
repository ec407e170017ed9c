import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AudioLM, scope, tensor, writeWav } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const home = mkdtempSync(join(tmpdir(), 'voxtorch-audio-lm-small-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

const DIGITS = 'zero one two three four five six seven eight nine'.split(' ')
const TEXTS: Record<string, string> = {
  ...Object.fromEntries(DIGITS.map((text, i) => [`digits/${i}`, text])),
  'press-one': 'Press one now.',
  'press-two': 'Press two now',
  'dial-one': 'dial one now',
  'dial-two': 'Dial two now',
}

/** A record of any of the files. */
interface Row {
  messages: [object, { content: string }]
  prompt: object[]
  chosen: [{ content: string }]
  rejected: [{ content: string }]
}

describe('examples/audio-lm-small.ts on made-up recordings', () => {
  const at = (name: string) => join(home, name)
  const run = async (args: string[]) => {
    const env = { ...process.env, OMP_NUM_THREADS: '1' }
    return (await promisify(execFile)(process.execPath, args, { cwd: root, env, maxBuffer: 2 ** 26 })).stdout
  }
  const example = (...args: string[]) =>
    run(['--import', 'tsx', 'examples/audio-lm-small.ts', ...args, '--out', at('out')])
  const voxtorch = (words: string) => run(['dist/cli/main.js', ...words.split(' ')])

  beforeAll(async () => {
    for (const [i, name] of Object.keys(TEXTS).entries()) {
      const path = join(at('asterisk'), `${name}.wav`)
      mkdirSync(dirname(path), { recursive: true })
      const tone = Float32Array.from({ length: 1600 }, (_, t) => 0.3 * Math.sin(((300 + 90 * i) * t) / 1300))
      await scope(() => writeWav(path, tensor(tone), { sampleRate: 8000 }))
    }
    const lines = Object.entries(TEXTS).map((row) => row.join(': '))
    writeFileSync(at('transcripts.txt'), lines.join('\n'))
    const fixture = (name: string) => fixturePath(`models/audio-lm-folder-ultravox/${name}`)
    cpSync(fixture('llama'), at('llama'), { recursive: true })
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      cpSync(fixture(`v05/${name}`), join(at('llama'), name))
    }
    const data = ['--asterisk', at('asterisk'), '--transcripts', at('transcripts.txt')]
    await example('make', ...data, '--whisper', fixture('whisper'), '--llm', at('llama'))
  })

  const records = (name: string) =>
    readFileSync(join(at('out'), name), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))

  it('holds out texts, and writes records that agree', () => {
    const [train, heldOut, pairs, prompts] = ['train', 'held-out', 'pairs', 'prompts'].map((name) =>
      records(`${name}.jsonl`),
    ) as [Row[], Row[], Row[], Row[]]
    expect(train.length).toBeGreaterThan(1200)
    const texts = new Set(train.map(({ messages }) => messages[1].content))
    for (const { messages } of heldOut) expect(texts.has(messages[1].content)).toBe(false)
    for (const [i, { chosen, rejected, prompt }] of pairs.entries()) {
      const { messages } = train[i] as Row
      expect(chosen[0].content).toBe(messages[1].content)
      expect(chosen[0].content).not.toBe(rejected[0].content)
      expect(rejected[0].content).not.toBe('')
      expect(prompt[0]).toEqual(messages[0])
      expect(prompts[i]).toEqual({ prompt, reference: chosen[0].content })
    }
  })

  it('the commands of its header train the model, and the example scores it', async () => {
    const [model, out] = [join(at('out'), 'model'), at('out')]
    const few = '--max-steps 2 --batch-size 2 --lora-r 2 --no-progress --max-length 2048'
    await voxtorch(`sft --model ${model} --data ${out}/train.jsonl --merge ${few} --output ${out}/sft`)
    const tuned = `${out}/sft/model`
    await voxtorch(`dpo --model ${tuned} --data ${out}/pairs.jsonl ${few} --output ${out}/dpo`)
    await voxtorch(
      `grpo --model ${tuned} --data ${out}/prompts.jsonl --reward wer --max-completion-length 8 ${few} --output ${out}/grpo`,
    )
    const scores = await example('score', '--model', tuned, '--adapter', `${out}/dpo/adapter`)
    expect(scores).toMatch(/^sequences: WER \d\.\d{3}, with other clips \d\.\d{3}$/m)
    expect(JSON.parse(readFileSync(join(out, 'answers.json'), 'utf8'))).toHaveLength(records('held-out.jsonl').length)
    using one = await AudioLM.fromPretrained(tuned)
    expect(one.config.modelType).toBe('ultravox')
  })
})
