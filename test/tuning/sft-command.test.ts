import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { sftRule } from '../../lib/cli/sft.js'
import { DecoderLM, PeftModel } from '../../lib/index.js'
import { runCommand } from '../../lib/kit/command.js'
import { writeTextModel } from '../serve/text-model.mjs'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-sft-command-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const at = (name: string) => join(directory, name)
await writeTextModel(at('model'), DecoderLM, { hiddenSize: 32, intermediateSize: 64, numHiddenLayers: 1 })
const records = ['a', 'b', 'c', 'd'].map((prompt) => JSON.stringify({ prompt, completion: ' yes' }))
writeFileSync(at('train.jsonl'), records.join('\n'))

const sft = (words: string) => runCommand('voxtorch sft', sftRule, words.split(' '))
const usual = `--model ${at('model')} --data ${at('train.jsonl')} --no-progress`

it('voxtorch sft trains an adapter of quantized weights, or all weights', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const lora = '--lora-r 2 --target-modules q_proj,v_proj,down_proj --dora --loraplus-lr-ratio 4'
    const metrics = '--metrics exactMatch,rougeL --key-metric rougeL --max-new-tokens 8'
    const evaluated = `--eval-data ${at('train.jsonl')} ${metrics} --epochs 20 --learning-rate 0.05`
    expect(await sft(`${usual} ${lora} ${evaluated} --output ${at('run')}`)).toBe(0)
    const { valid, samples } = JSON.parse(log.mock.calls[0]?.[0] as string)
    expect(samples).toEqual({ train: 4, valid: 4, test: 0 })
    expect(valid).toMatchObject({ exactMatch: 1, rougeL: 1 })
    const peft = await PeftModel.fromPretrained(await DecoderLM.fromPretrained(at('model')), at('run/adapter'))
    expect(peft.peftConfig.default).toMatchObject({ r: 2, loraAlpha: 32, useDora: true })
    expect(await sft(`${usual} --quantize int8 --merge --gguf Q8_0 --max-steps 1 --output ${at('quantized')}`)).toBe(0)
    for (const file of ['adapter/adapter_model.safetensors', 'model/model.safetensors', 'model.gguf'])
      expect(existsSync(at(`quantized/${file}`)), file).toBe(true)
    expect(await sft(`${usual} --no-lora --optim muon --max-steps 1 --output ${at('whole')}`)).toBe(0)
    expect(existsSync(at('whole/model/tokenizer.json'))).toBe(true)
  } finally {
    log.mockRestore()
  }
})

it('voxtorch sft refuses what it cannot use, by name', async () => {
  await expect(sft('--data x')).rejects.toThrow(/^--model: expected a language model, got nothing/)
  await expect(sft('--model x')).rejects.toThrow(/^--data: expected a file of conversations, got nothing/)
  await expect(sft(`${usual} --metrics bleu`)).rejects.toThrow(/metrics\[0\].*got "bleu"/)
  await expect(sft(`${usual} --no-lora --lora-r 4`)).rejects.toThrow(
    /^sft: --lora-r: expected none with --no-lora, got 4/,
  )
  await expect(sft(`${usual} --no-lora --merge`)).rejects.toThrow(/^sft: --merge: expected none with --no-lora/)
  await expect(sft(`${usual} --train-encoder full`)).rejects.toThrow(
    /^sft: --train-encoder: expected none for a DecoderLM, got full/,
  )
})

it('voxtorch sft reads the spellings of a repository of the Hub from its folder', async () => {
  const repository = at('hub/models--tiny--model')
  const commit = '0123456789abcdef0123456789abcdef01234567'
  cpSync(at('model'), join(repository, 'snapshots', commit), { recursive: true })
  writeFileSync(join(repository, 'snapshots', commit, 'normalizer.json'), '["colour"]')
  mkdirSync(join(repository, 'refs'))
  writeFileSync(join(repository, 'refs', 'main'), commit)
  vi.stubEnv('HF_HUB_CACHE', at('hub'))
  vi.stubEnv('HF_HUB_OFFLINE', '1')
  try {
    const words = `--model tiny/model --data ${at('train.jsonl')} --no-progress --eval-data ${at('train.jsonl')} --metrics wer`
    await expect(sft(`${words} --normalizer english --max-steps 1 --output ${at('english')}`)).rejects.toThrow(
      /tiny--model.*normalizer\.json.*expected an object/,
    )
  } finally {
    vi.unstubAllEnvs()
  }
})
