import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  BigVGAN,
  CheckpointError,
  DecoderLM,
  DisposedError,
  getPeftModel,
  KMeans,
  manualSeed,
  setNumThreads,
  type UnitExtractor,
  UnitVoicebox,
} from '../../../lib/index.js'
import { GriffinLimVocoder, Usdm, type UsdmTokenizer } from '../../../lib/systems/usdm/index.js'
import { relativeError, settledTensors } from '../../helpers.js'
import { chirp, scriptedLlm, tinyLlm, tinySpeech, tinyTokenizer, tinyUnits } from './tiny-parts.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-files-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let tokenizer: UsdmTokenizer
let units: UnitExtractor
beforeAll(async () => {
  setNumThreads(1)
  tokenizer = await tinyTokenizer(join(folder, 'text'))
  units = await tinyUnits()
})

const vocoder = new GriffinLimVocoder()
const QUESTION = { units: [1, 2, 3] }

describe('files', () => {
  it('a saved folder answers as before, and a folder that is none says so', async () => {
    const directory = join(folder, 'saved')
    const llm = tinyLlm(tokenizer.vocabSize)
    const whole = new Usdm({ llm, tokenizer, units, ...tinySpeech() })
    await whole.save(join(folder, 'whole'))
    {
      using again = await Usdm.fromPretrained(join(folder, 'whole'))
      expect(again.voicebox).toBeInstanceOf(UnitVoicebox)
      expect(again.vocoder).toBeInstanceOf(BigVGAN)
      const spoken = { maxTextTokens: 5, maxUnits: 8, strict: true, steps: 2, seed: 3 }
      const [mine, theirs] = [await whole.respond(QUESTION, spoken), await again.respond(QUESTION, spoken)]
      expect({ ...theirs, wav: null }).toEqual({ ...mine, wav: null })
      // Its weight norm is folded.
      expect(relativeError(theirs.wav!.samples, mine.wav!.samples)).toBeLessThan(1e-5)
      using silent = await Usdm.fromPretrained(join(folder, 'whole'), { textOnly: true })
      expect(silent.speaks).toBe(false)
    }
    const usdm = new Usdm({ llm, tokenizer, units, vocoder })
    await usdm.save(directory)
    const limits = { maxTextTokens: 10, maxUnits: 12 }
    const before = await settledTensors()
    {
      using again = await Usdm.fromPretrained(directory)
      expect(again.units.layer).toBe(2)
      expect(again.vocoder).toBeInstanceOf(GriffinLimVocoder)
      expect(await again.respond(chirp(0.6), limits)).toEqual(await usdm.respond(chirp(0.6), limits))
    }
    expect(await settledTensors()).toBe(before)
    await expect(Usdm.fromPretrained(join(folder, 'text'))).rejects.toThrow(
      /expected model_type 'usdm' and a positive integer layer, got "llama"/,
    )
    await expect(Usdm.fromPretrained(folder)).rejects.toThrow(/expected the config\.json that Usdm\.save writes/)
    await expect(Usdm.fromPretrained(folder)).rejects.toBeInstanceOf(CheckpointError)
  })

  it('adapters of a fine-tuning are merged into the model that they were trained on', async () => {
    const base = join(folder, 'text')
    const adapter = join(folder, 'adapter')
    const llm = await DecoderLM.fromPretrained(base)
    llm.resizeTokenEmbeddings(tokenizer.vocabSize, { seed: 5 })
    manualSeed(8)
    const peft = getPeftModel(llm, {
      ...{ r: 4, loraAlpha: 8, targetModules: ['q_proj', 'v_proj'], taskType: 'CAUSAL_LM' },
      ...{ modulesToSave: ['embed_tokens', 'lm_head'], initLoraWeights: false },
    })
    llm.eval()
    await peft.savePretrained(adapter)
    tokenizer.saveTo(adapter)
    const limits = { maxTextTokens: 12, maxUnits: 12 }
    const wanted = await new Usdm({ llm, tokenizer, units }).respond(QUESTION, limits)
    const hearing = { encoder: units.encoder.network, kmeans: units.kmeans, layer: 2 }
    using usdm = await Usdm.fromPretrained({ llm: base, adapter, ...hearing })
    expect(await usdm.respond(QUESTION, limits)).toEqual(wanted)
    const without = await peft.disableAdapter(() => new Usdm({ llm, tokenizer, units }).respond(QUESTION, limits))
    expect(without).not.toEqual(wanted)
    await expect(Usdm.fromPretrained({ llm, adapter, ...hearing })).rejects.toThrow(
      /expected the path of a language model with adapter, got a loaded DecoderLM/,
    )
    const bare = join(folder, 'bare')
    const other = await DecoderLM.fromPretrained(base)
    await getPeftModel(other, { r: 2, targetModules: ['q_proj'], taskType: 'CAUSAL_LM' }).savePretrained(bare)
    const before = await settledTensors()
    await expect(Usdm.fromPretrained({ llm: base, tokenizer, adapter: bare, ...hearing })).rejects.toThrow(
      /expected embeddings of the speech tokens in .*text or .*bare, got none/,
    )
    await expect(Usdm.fromPretrained({ llm: base, tokenizer, adapter: base, ...hearing })).rejects.toThrow(/adapter/)
    expect(await settledTensors()).toBe(before)
  })

  it('what was loaded is freed with it, and what was given stays', async () => {
    const own = await Usdm.fromPretrained({
      llm: join(folder, 'saved/llm'),
      encoder: join(folder, 'saved/encoder'),
      kmeans: join(folder, 'saved/kmeans.npy'),
      layer: 2,
    })
    const some = own.llm.parameters()[0]
    own.dispose()
    expect(() => some?.shape).toThrow(DisposedError)
    const centroids = new KMeans(units.kmeans.centroids)
    const given = await Usdm.fromPretrained({
      ...{ llm: scriptedLlm(tokenizer), tokenizer, encoder: units.encoder.network, kmeans: centroids, layer: 2 },
    })
    given.dispose()
    expect((await given.respond(QUESTION)).text).toBe('ok.')
  })
})
