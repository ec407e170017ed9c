import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { dpoRule } from '../../lib/cli/dpo.js'
import { DecoderLM, PeftModel } from '../../lib/index.js'
import { runCommand } from '../../lib/kit/command.js'
import { writeTextModel } from '../serve/text-model.mjs'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-dpo-command-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const at = (name: string) => join(directory, name)
await writeTextModel(at('model'), DecoderLM, { hiddenSize: 32, intermediateSize: 48, numHiddenLayers: 1 })
const pairs = ['a', 'b', 'c', 'd'].map((prompt) => JSON.stringify({ prompt, chosen: 'yes', rejected: 'no' }))
writeFileSync(at('pairs.jsonl'), pairs.join('\n'))

const dpo = (words: string) => runCommand('voxtorch dpo', dpoRule, words.split(' '))
const usual = `--model ${at('model')} --data ${at('pairs.jsonl')} --no-progress`

it('voxtorch dpo trains an adapter, or all weights', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const lora = '--loss-type simpo --beta 2 --simpo-gamma 1 --lora-r 2 --target-modules q_proj,v_proj'
    expect(
      await dpo(
        `${usual} ${lora} --eval-data ${at('pairs.jsonl')} --epochs 8 --learning-rate 0.05 --output ${at('run')}`,
      ),
    ).toBe(0)
    const { valid, samples } = JSON.parse(log.mock.calls[0]?.[0] as string)
    expect(samples).toEqual({ train: 4, valid: 4, test: 0 })
    expect(valid.rewardsAccuracies).toBe(1)
    const peft = await PeftModel.fromPretrained(await DecoderLM.fromPretrained(at('model')), at('run/adapter'))
    expect(peft.peftConfig.default).toMatchObject({ r: 2, loraAlpha: 32 })
    expect(await dpo(`${usual} --no-lora --max-steps 1 --output ${at('whole')}`)).toBe(0)
    expect(existsSync(at('whole/model/model.safetensors'))).toBe(true)
  } finally {
    log.mockRestore()
  }
})

it('voxtorch dpo refuses what it cannot use, by name', async () => {
  await expect(dpo('--data x')).rejects.toThrow(/^--model: expected a language model, got nothing/)
  await expect(dpo('--model x')).rejects.toThrow(/^--data: expected a file of pairs, got nothing/)
  await expect(dpo(`${usual} --simpo-gamma 1`)).rejects.toThrow(/simpoGamma: expected it only with loss 'simpo'/)
  await expect(dpo(`${usual} --no-lora --lora-r 4`)).rejects.toThrow(
    /^dpo: --lora-r: expected none with --no-lora, got 4/,
  )
})
