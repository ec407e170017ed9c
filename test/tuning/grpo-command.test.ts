import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { grpoRule } from '../../lib/cli/grpo.js'
import { DecoderLM } from '../../lib/index.js'
import { helpOf, runCommand } from '../../lib/kit/command.js'
import { fixturePath } from '../helpers.js'
import { writeTextModel } from '../serve/text-model.mjs'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-grpo-command-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const at = (name: string) => join(directory, name)
await writeTextModel(at('model'), DecoderLM, { hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 1 })
writeFileSync(at('prompts.jsonl'), ['a', 'b'].map((prompt) => JSON.stringify({ prompt, reference: 'a' })).join('\n'))
writeFileSync(
  at('reward.mjs'),
  'export const brief = ({ completionIds }) => -completionIds.length\nexport async function first({ completionIds }) { return completionIds[0] / 256 }\n',
)
writeFileSync(at('none.mjs'), 'export const text = 1\n')

const grpo = (words: string) => runCommand('voxtorch grpo', grpoRule, words.split(' '))
const short = '--no-progress --max-steps 1 --num-generations 2 --max-completion-length 4'
const usual = `--model ${at('model')} --data ${at('prompts.jsonl')} ${short}`

it('voxtorch grpo trains with rewards of a module and WER', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const rewards = `--reward ${at('reward.mjs')},wer --reward-weights 0.1,1,1`
    expect(await grpo(`${usual} ${rewards} --eval-data ${at('prompts.jsonl')} --output ${at('run')}`)).toBe(0)
    const { valid } = JSON.parse(log.mock.calls[0]?.[0] as string)
    expect(Object.keys(valid)).toEqual(expect.arrayContaining(['rewards/brief', 'rewards/first', 'rewards/wer']))
    expect(existsSync(at('run/adapter/adapter_config.json'))).toBe(true)
    expect(await grpo(`${usual} --reward wer --no-lora --output ${at('whole')}`)).toBe(0)
    expect(existsSync(at('whole/model/model.safetensors'))).toBe(true)
    const messages = { prompt: [{ role: 'user', content: 'Who?' }], reference: 'a' }
    writeFileSync(at('chats.jsonl'), JSON.stringify(messages))
    const speech = `--model ${fixturePath('models/audio-lm-folder-qwen2_audio')} --data ${at('chats.jsonl')}`
    expect(await grpo(`${short} ${speech} --reward wer --beta 0.1 --lora-r 2 --output ${at('speech')}`)).toBe(0)
    expect(readFileSync(at('speech/adapter/adapter_config.json'), 'utf8')).toContain('language_model')
  } finally {
    log.mockRestore()
  }
  expect(helpOf('voxtorch grpo', grpoRule)).toMatch(/--num-generations/)
})

it('voxtorch grpo refuses what it cannot use, by name', async () => {
  await expect(grpo('--data x --reward wer')).rejects.toThrow(/^--model: expected a language model, got nothing/)
  await expect(grpo('--model x --data x')).rejects.toThrow(/^--reward: expected a reward function, got nothing/)
  await expect(grpo(`${usual} --reward ${at('nowhere.js')}`)).rejects.toThrow(
    /--reward: .*nowhere\.js, which does not exist/,
  )
  await expect(grpo(`${usual} --reward ${at('none.mjs')}`)).rejects.toThrow(
    /--reward: expected exported functions in .*none/,
  )
  await expect(grpo(`${usual} --reward wer --reward-weights x`)).rejects.toThrow(
    /--reward-weights: expected numbers, got x/,
  )
  await expect(grpo(`${usual} --reward wer --no-lora --lora-r 4`)).rejects.toThrow(
    /^grpo: --lora-r: expected none with/,
  )
})
