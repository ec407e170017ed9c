import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import {
  AdamW,
  ConfigError,
  DecoderLM,
  type DecoderLMConfig,
  getPeftModel,
  manualSeed,
  noGrad,
  quantize,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { difference, expectClose, here, settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-resize-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const size: DecoderLMConfig = {
  modelType: 'mistral',
  vocabSize: 300,
  hiddenSize: 64,
  intermediateSize: 96,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
}
const make = (more: DecoderLMConfig = {}) => DecoderLM.fromConfig({ ...size, ...more }, { seed: 5 }).eval()
const ids = (...list: number[]) => tensor([list.map(BigInt)], { dtype: 'int64' })
const weight = (model: DecoderLM, path: string): Tensor => (model.get(path) as unknown as { weight: Tensor }).weight
const tables = (model: DecoderLM) =>
  (model.config.tieWordEmbeddings ? ['model.embed_tokens'] : ['model.embed_tokens', 'lm_head']).map((path) =>
    weight(model, path),
  )
const logits = async (model: DecoderLM, input: Tensor) =>
  noGrad(async () => (await model.forward({ inputIds: input })).logits as Tensor)

describe.each([false, true])('resizeTokenEmbeddings, tied: %s', (tieWordEmbeddings) => {
  it('keeps the old rows to the bit and draws the new ones from N(0, 0.02)', () => {
    const model = make({ tieWordEmbeddings })
    const before = tables(model).map((one) => one.clone())
    const objects = tables(model)
    expect(model.resizeTokenEmbeddings(10_300, { seed: 1 })).toBe(model)
    expect(tables(model)).toEqual(objects)
    expect(model.config.vocabSize).toBe(10_300)
    for (const [i, table] of tables(model).entries()) {
      expect(table.shape).toEqual([10_300, 64])
      expect(table.narrow(0, 0, 300).equal(before[i] as Tensor)).toBe(true)
      const fresh = table.narrow(0, 300, 10_000)
      // 640,000 draws: the mean's deviation is 2.5e-5, the deviation's 1.8e-5.
      expect(Math.abs(fresh.mean().item() as number)).toBeLessThan(2e-4)
      expect(Math.abs((fresh.std().item() as number) - 0.02)).toBeLessThan(2e-4)
    }
    if (!tieWordEmbeddings) {
      const [words, head] = tables(model) as [Tensor, Tensor]
      expect(words.narrow(0, 300, 1).equal(head.narrow(0, 300, 1))).toBe(false)
    }
    const again = make({ tieWordEmbeddings }).resizeTokenEmbeddings(10_300, { seed: 1 })
    for (const [i, table] of tables(again).entries()) expect(table.equal(tables(model)[i] as Tensor)).toBe(true)
    expect(make({ initializerRange: 0.5 }).resizeTokenEmbeddings(600).get<never>('lm_head')).toBeTruthy()
  })

  it('says of old tokens what it said, and of new ones the product with their rows', async () => {
    const model = make({ tieWordEmbeddings })
    const before = await logits(model, ids(1, 7, 299))
    model.resizeTokenEmbeddings(320)
    const after = await logits(model, ids(1, 7, 299))
    expect(after.shape).toEqual([1, 3, 320])
    expectClose(after.narrow(2, 0, 300), before)
    const { lastHiddenState, loss } = await model.forward({ inputIds: ids(1, 310, 7), labels: ids(1, 310, 319) })
    const head = tables(model).at(-1) as Tensor
    const all = lastHiddenState.double().matmul(head.double().t())
    expectClose((await logits(model, ids(1, 310, 7))).double(), all.detach())
    await (loss as Tensor).backward()
    for (const table of tables(model)) expect(table.grad?.shape).toEqual([320, 64])
    expect(tables(model)[0]?.grad?.select(0, 310).abs().max().item()).toBeGreaterThan(0)
  })

  it('generates new tokens, alone and in a batch, and steps an optimiser made afterwards', async () => {
    const model = make({ tieWordEmbeddings }).resizeTokenEmbeddings(320)
    const { lastHiddenState } = await noGrad(() => model.forward({ inputIds: ids(1, 7) }))
    noGrad(() => {
      const head = tables(model).at(-1) as Tensor
      head.select(0, 317).copy_(lastHiddenState.select(0, 0).select(0, 1).mul(100))
    })
    const config = { maxNewTokens: 1, eosTokenId: 2 }
    expect((await model.generate({ inputIds: ids(1, 7) }, config)).tokens).toEqual([[317]])
    const two = tensor([1n, 7n, 1n, 7n], { dtype: 'int64' }).view([2, 2])
    expect((await model.generate({ inputIds: two }, config)).tokens).toEqual([[317], [317]])
    // Bans reach all rows, and each row of a batch is its own.
    const suppressTokens = Array.from({ length: 320 }, (_, id) => id).filter((id) => id !== 305)
    expect((await model.generate({ inputIds: two }, { ...config, suppressTokens })).tokens).toEqual([[305], [305]])
    const sampled = { ...config, doSample: true, topK: 1 }
    expect((await model.generate({ inputIds: two }, sampled)).tokens).toEqual([[317], [317]])
    const optimizer = new AdamW(model.parameters(), { lr: 1e-2 })
    const before = (tables(model)[0] as Tensor).clone()
    const { loss } = await model.forward({ inputIds: ids(1, 317, 7), labels: ids(1, 317, 7) })
    await (loss as Tensor).backward()
    await optimizer.step()
    expect(difference(tables(model)[0] as Tensor, before)).toBeGreaterThan(0)
    optimizer.dispose()
  })

  it('is saved with its new size', async () => {
    const model = make({ tieWordEmbeddings }).resizeTokenEmbeddings(333)
    const path = join(folder, `tied-${tieWordEmbeddings}`)
    await model.save(path)
    const again = await DecoderLM.fromPretrained(path)
    expect(again.config.vocabSize).toBe(333)
    expect((await logits(again, ids(1, 332))).equal(await logits(model, ids(1, 332)))).toBe(true)
  })
})

describe('resizeTokenEmbeddings', () => {
  it('takes the last rows away, unless padding has one', () => {
    const model = make()
    const [words] = tables(model).map((one) => one.clone()) as [Tensor]
    model.resizeTokenEmbeddings(200)
    expect((tables(model)[0] as Tensor).equal(words.narrow(0, 0, 200))).toBe(true)
    expect(() => make({ padTokenId: 250 }).resizeTokenEmbeddings(250)).toThrow(/expected more than padTokenId, 250/)
  })

  it('warns where an optimiser was made before, and only there', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const model = make()
    model.resizeTokenEmbeddings(310)
    const optimizer = new AdamW(model.parameters(), { lr: 1e-3 })
    model.resizeTokenEmbeddings(310)
    expect(warn).not.toHaveBeenCalled()
    const train = async () => {
      const { loss } = await model.forward({ inputIds: ids(1, 5, 9), labels: ids(1, 5, 9) })
      await (loss as Tensor).backward()
      await optimizer.step()
    }
    await train()
    model.resizeTokenEmbeddings(311)
    expect(warn.mock.calls.map(([text]) => String(text))).toEqual([
      expect.stringMatching(/existing optimizer for model\.embed_tokens and lm_head has the old size.*Create a new/),
    ])
    expect(tables(model)[0]?.grad).toBeNull()
    // What the warning speaks of is no silent nonsense.
    await expect(train()).rejects.toThrow()
    warn.mockRestore()
    optimizer.dispose()
  })

  it.runIf(here() === 'cpu')('refuses tables that are packed, by their names', () => {
    const model = make()
    quantize(model, { scheme: 'q8_0' })
    const before = model.config.vocabSize
    expect(() => model.resizeTokenEmbeddings(320)).toThrow(ConfigError)
    expect(() => model.resizeTokenEmbeddings(320)).toThrow(
      /resizeTokenEmbeddings: 'model\.embed_tokens': expected weights without quantization, got q8_0\. Load the model/,
    )
    expect(model.config.vocabSize).toBe(before)
    const layers = make()
    quantize(layers, { scheme: 'int8', modules: 'model.layers' })
    expect(layers.resizeTokenEmbeddings(320).config.vocabSize).toBe(320)
    const head = make()
    quantize(head, { scheme: 'int8', modules: 'lm_head' })
    expect(() => head.resizeTokenEmbeddings(320)).toThrow(
      /resizeTokenEmbeddings: 'lm_head': expected weights without quantization, got int8\. Load the model with/,
    )
  })

  it('refuses a model with adapters, a wrong count and unknown options', () => {
    const model = make()
    getPeftModel(model, { r: 2, targetModules: ['q_proj'] })
    expect(() => model.resizeTokenEmbeddings(320)).toThrow(/expected a model without adapters, got default/)
    for (const count of [0, -1, 1.5, Number.NaN, '320' as never]) {
      expect(() => make().resizeTokenEmbeddings(count)).toThrow(ConfigError)
    }
    expect(() => make().resizeTokenEmbeddings(320, { sigma: 1 } as never)).toThrow(/sigma/)
  })

  it('leaves no tensor behind', async () => {
    manualSeed(1)
    const model = make()
    const before = await settledTensors()
    scope(() => void model.resizeTokenEmbeddings(400))
    expect(await settledTensors()).toBe(before)
  })
})
